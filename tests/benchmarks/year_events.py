"""What a year leaves in Dagster's PostgreSQL: runs with their events, evaluations, observations, and ticks.

One week goes through Dagster's own interface: each kind of run really happens once, on outputs that are up to date,
and is stored again for the other batches. The other weeks are copies of it in SQL, for event by event they would
take an hour; their events are dated in the database, and inside say the first week.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, islice

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.events.log import EventLogEntry
from dagster._core.scheduler.instigation import TickData, TickStatus
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.utils import make_new_run_id
from dagster._serdes import deserialize_value, serialize_value
from sqlalchemy import Connection, create_engine, text
from tqdm import tqdm

from assets.stage_asset import FINAL_TAG
from jobs.runner.lineage import Lineage
from orchestration.plan import Row
from orchestration.plan_events import PLAN_TAG, plan_metadata

WEEK = 7 * 86400.0
LOG_LINES = {"retraining": 150, "evaluation": 60, "sa1b_data": 10, "reporting": 10}  # a step
PLANS_A_WEEK = 4  # each is seen twice: something to do, and done
DAYS_OF_SKIPPED_TICKS = 3  # infra/dagster/production.yaml

OTHER_RUN = "CASE WHEN run_id = '' THEN '' ELSE md5(run_id || week)::uuid::text END"
LATER = "+ week * interval '7 days'"
LATER_EVENT = "+ week * (SELECT max(id) FROM event_logs)"
# Column -> what the copy of a row has in it, of those that are not the same.
COPIES: Mapping[str, Mapping[str, str]] = {
    "runs": {
        "run_id": OTHER_RUN,
        "run_body": f"replace(run_body, run_id, {OTHER_RUN})",
        "create_timestamp": f"create_timestamp {LATER}",
        "update_timestamp": f"update_timestamp {LATER}",
        "start_time": f"start_time + week * {WEEK}",
        "end_time": f"end_time + week * {WEEK}",
    },
    "run_tags": {"run_id": OTHER_RUN},
    "asset_event_tags": {"event_id": f"event_id {LATER_EVENT}"},
    "asset_check_executions": {
        "run_id": OTHER_RUN,
        "evaluation_event": f"replace(evaluation_event, run_id, {OTHER_RUN})",
        "evaluation_event_timestamp": f"evaluation_event_timestamp {LATER}",
        "evaluation_event_storage_id": f"evaluation_event_storage_id {LATER_EVENT}",
        "materialization_event_storage_id": f"materialization_event_storage_id {LATER_EVENT}",
        "create_timestamp": f"create_timestamp {LATER}",
    },
    # Last, for the others ask it how far its numbers go.
    "event_logs": {
        "run_id": OTHER_RUN,
        "event": f"replace(event, run_id, {OTHER_RUN})",
        "timestamp": f"timestamp {LATER}",
    },
}


@dataclass(frozen=True, kw_only=True)
class Template:
    """A run that happened, with its events, as Dagster serializes them."""

    run: DagsterRun
    events: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A job that runs so many times a week; partitions: of its runs, in turn; None where it has none.

    assets: not all of the job, where the others need MLflow.
    """

    job: str
    runs: int
    partitions: Sequence[str] | None = None
    assets: Sequence[str] | None = None


def kinds_of_runs(lineage: Lineage, runs_a_week: int) -> list[Kind]:
    benchmarks = lineage.stage("benchmark").partitions
    batches = lineage.stage("prepare_sa1b").partitions
    others = 1 + len(benchmarks) + 1 + 1
    return [
        Kind(job="retraining", runs=1),
        Kind(job="evaluation", runs=len(benchmarks), partitions=benchmarks),
        Kind(job="reporting", runs=1, assets=("benchmark_report",)),
        Kind(job="sa1b_data", runs=runs_a_week - others, partitions=batches),
    ]


def write_year(
    lineage: Lineage,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    url: str,
    runs: int,
    weeks: int,
) -> None:
    """url: of the database that the instance is in."""
    started = time.time() - weeks * WEEK
    write_week(lineage, definitions, instance, runs // weeks, started)
    write_observations(lineage, instance)
    engine = create_engine(url)
    with engine.begin() as database:
        copy_weeks(database, weeks)
        write_ticks(database, definitions, instance)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
        database.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def write_week(
    lineage: Lineage, definitions: dg.Definitions, instance: dg.DagsterInstance, runs: int, started: float
) -> None:
    stored = []
    for kind in kinds_of_runs(lineage, runs):
        template = happened(definitions, instance, kind)
        for partition in islice(cycle(kind.partitions or [None]), kind.runs):
            stored.append((template, partition))
        instance.delete_run(template.run.run_id)
    for number, (template, partition) in enumerate(tqdm(stored, desc="A week", unit="run")):
        store(instance, template, partition, started + number * WEEK / len(stored))
    failed = instance.create_run_for_job(
        definitions.resolve_job_def("tokenizer_training"),
        status=dg.DagsterRunStatus.STARTED,
        tags={FINAL_TAG: "wrong input"},
    )
    instance.report_run_failed(failed)


def happened(definitions: dg.Definitions, instance: dg.DagsterInstance, kind: Kind) -> Template:
    """Run it. Raises what the run raises."""
    result = definitions.resolve_job_def(kind.job).execute_in_process(
        instance=instance,
        partition_key=kind.partitions[0] if kind.partitions else None,
        asset_selection=[dg.AssetKey(name) for name in kind.assets] if kind.assets else None,
    )
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    events = list(with_log_lines(instance.all_logs(run.run_id), LOG_LINES[kind.job]))
    return Template(run=run, events=[serialize_value(event) for event in events])


def with_log_lines(events: Sequence[EventLogEntry], count: int) -> Iterator[EventLogEntry]:
    """With what a job says while it runs, which these had no reason for."""
    for event in events:
        yield event
        if event.dagster_event_type is dg.DagsterEventType.STEP_START:
            line = event._replace(dagster_event=None, level=20)
            for step in range(count):
                yield line._replace(
                    user_message=f"step {step}  loss 0.1234  iou 0.7321  rate 0.0001  masks_s 5.1"
                )


def store(instance: dg.DagsterInstance, template: Template, partition: str | None, when: float) -> None:
    """The same run for another partition at another time."""
    new = {template.run.run_id: make_new_run_id()}
    if partition is not None:
        new[str(template.run.tags["dagster/partition"])] = partition

    def renamed(serialized: str) -> str:
        for old, name in new.items():
            serialized = serialized.replace(old, name)
        return serialized

    run = deserialize_value(renamed(serialize_value(template.run)), DagsterRun)
    instance.run_storage.add_historical_run(run, datetime.fromtimestamp(when, UTC))
    for number, event in enumerate(template.events):
        entry = deserialize_value(renamed(event), EventLogEntry)
        instance.handle_new_event(entry._replace(timestamp=when + number))


def write_observations(lineage: Lineage, instance: dg.DagsterInstance) -> None:
    """Plans, as `ledger_sync` shows them wherever they change."""
    for stage in lineage.stages:
        for number in range(PLANS_A_WEEK):
            for plan in ("runs", "does_not_run"):
                rows = [
                    Row(
                        address=str(address),
                        plan=plan,
                        why=""
                        if plan == "does_not_run"
                        else "jobs/preparation/contract.py changed, jobs/x.py is new",
                        changes=[],
                        waits_for=[],
                        seconds=12.5,
                        device_hours=0.0,
                        estimated=False,
                    )
                    for address in stage.addresses
                ]
                tags = {PLAN_TAG: f"{plan}-{number}"}
                instance.report_runless_asset_event(
                    dg.AssetObservation(stage.name, metadata=plan_metadata(rows), tags=tags)
                )


def copy_weeks(database: Connection, weeks: int) -> None:
    for table, changed in COPIES.items():
        names = database.execute(
            text("SELECT column_name FROM information_schema.columns WHERE table_name = :table"),
            {"table": table},
        ).scalars()
        columns = {name: changed.get(name, f'"{name}"') for name in names if name != "id"}
        columns["id"] = f"id + week * (SELECT max(id) FROM {table})"
        written = ", ".join(f'"{name}"' for name in columns)
        database.execute(
            text(
                f"INSERT INTO {table} ({written}) SELECT {', '.join(columns.values())}"
                f" FROM {table}, generate_series(1, :weeks - 1) AS week ORDER BY week, id"
            ),
            {"weeks": weeks},
        )
        database.execute(text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"))


def write_ticks(database: Connection, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """As many as the retention of ticks leaves of sensors that mostly skip."""
    repository = definitions.get_repository_def()
    assert instance.schedule_storage is not None
    for sensor in repository.sensor_defs:
        data = TickData(
            instigator_origin_id=sensor.name,
            selector_id=sensor.name,
            instigator_name=sensor.name,
            instigator_type=InstigatorType.SENSOR,
            status=TickStatus.SKIPPED,
            timestamp=time.time() - DAYS_OF_SKIPPED_TICKS * 86400,
            skip_reason="up to date: neither ledger, parameters, partitions nor code have changed",
            cursor="0" * 32,
        )
        instance.schedule_storage.create_tick(data)
        seconds = sensor.minimum_interval_seconds or 30
        database.execute(
            text(
                "INSERT INTO job_ticks (job_origin_id, selector_id, status, type, timestamp, tick_body)"
                " SELECT job_origin_id, selector_id, status, type,"
                " timestamp + number * :seconds * interval '1 second', tick_body"
                " FROM job_ticks, generate_series(1, :count) AS number WHERE selector_id = :name"
            ),
            {"name": sensor.name, "seconds": seconds, "count": int(DAYS_OF_SKIPPED_TICKS * 86400 / seconds)},
        )
