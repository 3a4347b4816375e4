"""Sensors: new shards, what `dvc repro` has done, and what follows a retraining."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from jobs.runner.lineage import look_up, read_lineage, read_yaml
from orchestration.jobs import retraining
from orchestration.ledger_sync import sync_ledger
from orchestration.partitions import SA1B_BATCHES, add_batch

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


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
        reported = sync_ledger(root, context.instance)
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
