"""Sensors: new shards, what `dvc repro` has done, and what follows a retraining."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from data_contracts.errors import InputError
from jobs.runner.ledger import value_hash
from jobs.runner.lineage import code_files, look_up, read_lineage, read_yaml
from jobs.runner.staleness import lineage_state
from orchestration.automation.new_data import (
    find_new_shards,
    new_versions,
    set_versions,
    stale_datasets,
    state_of_referring,
)
from orchestration.automation.settings import NewData
from orchestration.jobs import retraining
from orchestration.launching.interface import LaunchFailed
from orchestration.launching.orphans import launchers_in_use, orphans
from orchestration.ledger_sync import sync_ledger
from orchestration.partitions import SA1B_BATCHES, add_batch

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

SECONDS_BETWEEN_FULL_LOOKS = 600.0


def state_of_files(root: Path, now: float) -> str:
    """Changes with every file that decides what is recorded and what is stale, and every few minutes.

    Looking at every stage takes seconds; at these files, milliseconds. What they do not show (an output was
    deleted) is seen at the next full look.
    """
    names = ["dvc.yaml", "dvc.lock", "params.yaml", "partitions.yaml"]
    code = {path for stage in read_lineage(root).stages for path in stage.code}
    files = [root / name for name in names] + [
        file for path in sorted(code) for file in code_files(root / path)
    ]
    digest = hashlib.md5(str(int(now // SECONDS_BETWEEN_FULL_LOOKS)).encode())
    for file in files:
        if file.exists():
            status = file.stat()
            digest.update(f"{file.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def build_sensors(
    root: Path, jobs: "dict[str, UnresolvedAssetJobDefinition]", settings: NewData
) -> list[dg.SensorDefinition]:
    @dg.sensor(
        job=jobs["sa1b_data"],
        minimum_interval_seconds=settings.seconds_between_looks,
        description="Finds shards that no batch holds, adds them as one batch, and prepares it.",
    )
    def new_shards(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        acquired = look_up(read_yaml(root / "params.yaml"), "acquire_sa1b")
        if acquired["source"] != "folder":
            return dg.SkipReason(
                f"acquire_sa1b.source is {acquired['source']!r}: there is no folder to watch"
            )
        shards = find_new_shards(root, time.time() - settings.settled_seconds)
        if not shards:
            return dg.SkipReason(f"no new shard in {acquired['folder']}")
        batch = add_batch(root, shards)
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=batch, partition_key=batch)],
            dynamic_partitions_requests=[SA1B_BATCHES.build_add_request([batch])],
        )

    @dg.sensor(
        job=jobs["referring_data"],
        minimum_interval_seconds=settings.seconds_between_looks,
        description="Finds referring data sets whose folder or parameters changed, or that are new, and prepares them.",
    )
    def new_referring_versions(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        changed = new_versions(root, time.time() - settings.settled_seconds)
        set_versions(root, changed)
        seen = state_of_referring(root)
        if context.cursor == seen:
            return dg.SkipReason("no data set has changed")
        stale = stale_datasets(lineage_state(root))
        requests = [dg.RunRequest(run_key=key, partition_key=name) for name, key in stale.items()]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "no data set has changed",
            cursor=seen,
        )

    @dg.sensor(
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Shows what `dvc repro` has made as materialized, with the versions in dvc.lock.",
    )
    def ledger_sync(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        seen = state_of_files(root, time.time())
        if context.cursor == seen:
            return dg.SkipReason("up to date: neither ledger, parameters, partitions nor code have changed")
        reported = sync_ledger(root, context.instance)
        context.update_cursor(seen)
        return dg.SkipReason(f"reported {', '.join(map(str, reported))}" if reported else "up to date")

    @dg.sensor(
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Finds jobs that no run watches any more; cancels them where ALTO_CANCEL_ORPHANS is 1.",
    )
    def orphaned_jobs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        cancels = os.environ.get("ALTO_CANCEL_ORPHANS") == "1"
        found = []
        try:
            for launcher in launchers_in_use(root):
                for handle in orphans(launcher, root):
                    found.append(f"{handle.name} ({handle.id})")
                    if cancels:
                        launcher.cancel(handle)
        except (InputError, LaunchFailed) as error:
            return dg.SkipReason(f"jobs cannot be listed: {error}")
        if not found:
            return dg.SkipReason("every job is watched by a run")
        done = "cancelled" if cancels else "run the stage again to have its result, or cancel it"
        context.log.warning(line := f"nobody watches {', '.join(found)}: {done}")
        return dg.SkipReason(line)

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[retraining],
        request_job=jobs["evaluation"],
        description="Benchmarks what a retraining has made.",
    )
    def evaluate_after_retraining(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest]:
        for benchmark in read_lineage(root).stage("benchmark").partitions:
            key = f"{context.dagster_run.run_id}:{benchmark}"
            yield dg.RunRequest(run_key=key, partition_key=benchmark)

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[jobs["evaluation"]],
        request_job=jobs["reporting"],
        description="Writes the report, registers and promotes when the last benchmark is up to date.",
    )
    def report_after_evaluation(context: dg.RunStatusSensorContext) -> dg.RunRequest | dg.SkipReason:
        benchmarks = [state for state in lineage_state(root) if state.address.stage == "benchmark"]
        # One that only follows a batch that was never prepared is measured: promotion then names that batch.
        missing = [str(state.address) for state in benchmarks if state.plan in ("runs", "restored")]
        if missing:
            return dg.SkipReason(f"not up to date yet: {', '.join(missing)}")
        # Benchmarks that end together ask for one report.
        versions = [state.recorded.entry_hash for state in benchmarks if state.recorded]
        return dg.RunRequest(run_key=value_hash(versions))

    return [
        new_shards,
        new_referring_versions,
        ledger_sync,
        orphaned_jobs,
        evaluate_after_retraining,
        report_after_evaluation,
    ]
