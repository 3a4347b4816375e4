"""Dagster's finished runs, with their events and logs.

A run stays whose event is the newest materialization of an asset or of one of its partitions: on that rests what the
asset's page shows. Events that no run made (`alto sync`) stay in any case. However many runs there are, they are asked
for in a few queries of a thousand: no query for each run.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from sqlalchemy import select

from orchestration.housekeeping.part import LeftOut, size_and_change
from orchestration.housekeeping.rules import Found, Key, Rule
from orchestration.housekeeping.settings import Retention

RUN, LOG = "Dagster run", "log of a Dagster run"
AT_ONCE = 1000
BACKFILL_TAG, PARTITION_TAG = "dagster/backfill", "dagster/partition"
UNFINISHED_BACKFILLS = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


@dataclass
class DagsterRuns:
    instance: dg.DagsterInstance
    retention: Retention

    @property
    def rules(self) -> Mapping[str, Rule]:
        runs = self.retention.dagster_runs
        return {
            RUN: Rule(days=runs.days, newest=runs.newest),
            LOG: Rule(days=self.retention.run_logs.days),
        }

    def held(self) -> AbstractContextManager[None]:
        """No lock: only runs that have ended, days ago, are deleted, and nothing can begin in them."""
        return nullcontext()

    def find(self) -> list[Found]:
        needed = materializing_runs(self.instance)
        backfills = {
            backfill.backfill_id
            for backfill in self.instance.get_backfills(BulkActionsFilter(statuses=UNFINISHED_BACKFILLS))
        }
        logs = log_folders(self.instance)
        found = []
        going_on = set()
        for record in all_runs(self.instance):
            run = record.dagster_run
            if run.status not in FINISHED_STATUSES:
                going_on.add(run.run_id)
                reason = "it is not finished"
            elif run.tags.get(BACKFILL_TAG) in backfills:
                reason = "its backfill is not finished"
            else:
                reason = needed.get(run.run_id, "")
            others = {run.parent_run_id, run.root_run_id} - {None, run.run_id}
            found.append(
                Found(
                    key=Key(RUN, run.run_id),
                    changed=record.end_time or record.update_timestamp.timestamp(),
                    bytes=events_size(self.instance, run.run_id),
                    needed=reason,
                    refers_to=frozenset(Key(RUN, str(other)) for other in others),
                    group=f"{run.job_name} {run.tags.get(PARTITION_TAG, '')}",
                )
            )
        return found + [
            Found(
                key=Key(LOG, run_id),
                changed=changed,
                bytes=size,
                needed="its run is not finished" if run_id in going_on else "",
            )
            for run_id, (size, changed) in logs.items()
        ]

    def remove(self, keys: Sequence[Key]) -> None:
        """Of a run the record goes last: a call that is killed leaves it, and the next one finds it again."""
        for key in keys:
            self.instance.compute_log_manager.delete_logs(prefix=[key.name])
            if key.kind == RUN:
                events = self.instance.event_log_storage
                events.delete_events(key.name)
                if isinstance(events, SqliteEventLogStorage):  # has a file for each run
                    for file in Path(events.path_for_shard(key.name)).parent.glob(f"{key.name}.db*"):
                        file.unlink()
                self.instance.run_storage.delete_run(key.name)


def all_runs(instance: dg.DagsterInstance) -> Iterator[dg.RunRecord]:
    cursor = None
    while records := instance.get_run_records(limit=AT_ONCE, cursor=cursor):
        yield from records
        cursor = records[-1].dagster_run.run_id


def materializing_runs(instance: dg.DagsterInstance) -> dict[str, str]:
    """Run -> what it made that is still the newest: of each asset and of each of its partitions."""
    events = instance.event_log_storage
    if not isinstance(events, SqlEventLogStorage):
        raise LeftOut(f"Dagster: its events are in a {type(events).__name__}, which is not known here")
    keys = list(instance.all_asset_keys())
    runs = {}
    names: dict[int, str] = {}
    for record in instance.get_asset_records(keys):
        entry = record.asset_entry
        if entry.last_materialization_record is not None:
            names[entry.last_materialization_record.storage_id] = entry.asset_key.to_user_string()
    for key in keys:
        newest = events.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
        names |= {storage_id: f"{key.to_user_string()}@{name}" for name, storage_id in newest.items()}
    table = SqlEventLogStorageTable.c
    ids = sorted(names)
    with events.index_connection() as connection:
        for start in range(0, len(ids), AT_ONCE):
            query = select(table.id, table.run_id).where(table.id.in_(ids[start : start + AT_ONCE]))
            for storage_id, run_id in connection.execute(query):
                runs[run_id] = f"made the newest {names[storage_id]}"
    return runs


def events_size(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """Of the file that SQLite keeps for a run; nobody knows it for the rows of a shared database."""
    events = instance.event_log_storage
    if not isinstance(events, SqliteEventLogStorage):
        return None
    file = Path(events.path_for_shard(run_id))
    return file.stat().st_size if file.exists() else 0


def log_folders(instance: dg.DagsterInstance) -> dict[str, tuple[int, float]]:
    """Run -> bytes of its logs, and when they were last written; also of runs that are gone."""
    manager = instance.compute_log_manager
    if isinstance(manager, LocalComputeLogManager):
        folders = [path for path in Path(manager._base_dir).glob("*") if is_run_id(path.name)]
        return {path.name: size_and_change(path) for path in folders}
    try:
        from dagster_aws.s3.compute_log_manager import S3ComputeLogManager
    except ImportError:
        return {}
    return logs_in_bucket(manager) if isinstance(manager, S3ComputeLogManager) else {}


def logs_in_bucket(manager: Any) -> dict[str, tuple[int, float]]:
    prefix = f"{manager._s3_prefix}/storage/"
    pages = manager._s3_session.get_paginator("list_objects_v2")
    logs: dict[str, tuple[int, float]] = {}
    for page in pages.paginate(Bucket=manager._s3_bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            run_id = item["Key"].removeprefix(prefix).partition("/")[0]
            if is_run_id(run_id):
                size, changed = logs.get(run_id, (0, 0.0))
                logs[run_id] = (size + item["Size"], max(changed, item["LastModified"].timestamp()))
    return logs


def is_run_id(name: str) -> bool:
    """Logs of sensors and schedules lie beside those of runs."""
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
