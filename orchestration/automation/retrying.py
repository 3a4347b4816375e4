"""Failed pieces tried again alone: the run that failed, and nothing beside it."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from assets.stage_asset import FINAL_TAG
from orchestration.automation.settings import Retrying

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

RETRY_SENSOR = "retry_failed"
PARTITION_TAG = "dagster/partition"
ATTEMPT_TAG = "alto/attempt"
RUNS_LOOKED_AT = 200  # newest of each job
SECONDS_BETWEEN_LOOKS = 300


def retry_sensor(jobs: "Sequence[UnresolvedAssetJobDefinition]", settings: Retrying) -> dg.SensorDefinition:
    @dg.sensor(
        name=RETRY_SENSOR,
        jobs=list(jobs),
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        description="Tries a failed run again after a while, unless its data or its result was refused.",
    )
    def retry_failed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        requests = list(due(context.instance, [job.name for job in jobs], settings, time.time()))
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "no failed run is due to be tried again",
        )

    return retry_failed


def due(
    instance: dg.DagsterInstance, jobs: Sequence[str], settings: Retrying, now: float
) -> Iterator[dg.RunRequest]:
    """A request for each partition of each job whose newest run failed long enough ago and may be tried again."""
    for job in jobs:
        seen: set[str | None] = set()
        for record in instance.get_run_records(dg.RunsFilter(job_name=job), limit=RUNS_LOOKED_AT):
            run = record.dagster_run
            partition = run.tags.get(PARTITION_TAG)
            if partition in seen:
                continue
            seen.add(partition)
            attempt = int(run.tags.get(ATTEMPT_TAG, "1"))
            if (
                run.status == dg.DagsterRunStatus.FAILURE
                and FINAL_TAG not in run.tags
                and attempt <= settings.times
                and now - (record.end_time or record.update_timestamp.timestamp())
                >= 60 * settings.after_minutes
            ):
                yield dg.RunRequest(
                    run_key=run.run_id,
                    job_name=job,
                    partition_key=partition,
                    tags={ATTEMPT_TAG: str(attempt + 1)},
                )
