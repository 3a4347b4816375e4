"""Sensors: new shards, what `dvc repro` has done, and what follows a retraining."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from jobs.runner.lineage import code_files, look_up, read_lineage, read_yaml
from orchestration.jobs import retraining
from orchestration.ledger_sync import sync_ledger
from orchestration.partitions import SA1B_BATCHES, add_batch

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

SECONDS_BETWEEN_FULL_LOOKS = 600.0


def find_new_shards(root: Path) -> list[str]:
    """Shard files in the configured folder that no batch holds yet."""
    settings = look_up(read_yaml(root / "params.yaml"), "acquire_sa1b")
    listed = {
        shard
        for shards in look_up(read_yaml(root / "partitions.yaml"), "sa1b.shards").values()
        for shard in shards
    }
    folder = root / settings["folder"]
    return sorted(path.name for path in folder.glob("*.tar") if path.name not in listed)


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


def build_sensors(root: Path, jobs: "dict[str, UnresolvedAssetJobDefinition]") -> list[dg.SensorDefinition]:
    @dg.sensor(
        job=jobs["sa1b_data"],
        minimum_interval_seconds=60,
        description="Finds shards that no batch holds, adds them as one batch, and prepares it.",
    )
    def new_shards(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        settings = look_up(read_yaml(root / "params.yaml"), "acquire_sa1b")
        if settings["source"] != "folder":
            return dg.SkipReason(
                f"acquire_sa1b.source is {settings['source']!r}: there is no folder to watch"
            )
        shards = find_new_shards(root)
        if not shards:
            return dg.SkipReason(f"no new shard in {settings['folder']}")
        batch = add_batch(root, shards)
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=batch, partition_key=batch)],
            dynamic_partitions_requests=[SA1B_BATCHES.build_add_request([batch])],
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
        description="Writes the report and registers the models after a benchmark.",
    )
    def report_after_evaluation(context: dg.RunStatusSensorContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=context.dagster_run.run_id)

    return [new_shards, ledger_sync, evaluate_after_retraining, report_after_evaluation]
