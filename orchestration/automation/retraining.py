"""When to retrain: a schedule, because order and cost matter; and a sensor for much new data."""

from pathlib import Path

import dagster as dg

from data_contracts.errors import InputError
from jobs.runner.lineage import read_lineage
from jobs.runner.staleness import lineage_state
from orchestration.automation.decision import Decision, decide, decide_on_new_data
from orchestration.automation.settings import Retraining
from orchestration.jobs import retraining

RUNNING = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
SECONDS_BETWEEN_LOOKS = 900
WHY_TAG = "alto/why"
CHAMPION_TAG = "alto/from-champion"
LONGEST_TAG = 250


def retraining_schedule(root: Path, settings: Retraining) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="weekly_retraining",
        job=retraining,
        cron_schedule=settings.cron,
        execution_timezone=settings.time_zone,
        description="Retrains if anything changed. Benchmarks and the report follow a retraining that succeeded.",
    )
    def weekly_retraining(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        busy = still_running(context.instance)
        decision = busy or decide(lineage_state(root))
        # By the time, not by what changed: a retraining that failed is tried again a week later.
        return _answer(root, settings, decision, context.scheduled_execution_time.isoformat())

    return weekly_retraining


def new_data_sensor(root: Path, settings: Retraining) -> dg.SensorDefinition:
    @dg.sensor(
        job=retraining,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        description="Retrains at once when there is enough data that nothing was trained on.",
    )
    def enough_new_data(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if settings.new_rows is None:
            return dg.SkipReason("retraining.new_rows is null: only the schedule retrains")
        decision = still_running(context.instance)
        if decision is None:
            profile = read_lineage(root).profile
            decision = decide_on_new_data(root, profile, lineage_state(root), settings.new_rows)
        return _answer(
            root, settings, decision, decision.key
        )  # a retraining on the same data that failed is not tried again

    return enough_new_data


def still_running(instance: dg.DagsterInstance) -> Decision | None:
    """That a retraining is going on; None where none is."""
    runs = instance.get_runs(dg.RunsFilter(job_name=retraining.name, statuses=RUNNING), limit=1)
    return Decision(start=False, reason=f"run {runs[0].run_id} is still retraining") if runs else None


def _answer(root: Path, settings: Retraining, decision: Decision, key: str) -> dg.RunRequest | dg.SkipReason:
    if not decision.start:
        return dg.SkipReason(decision.reason)
    tags = {WHY_TAG: decision.reason[:LONGEST_TAG]}
    if settings.from_champion:
        # Only now that a retraining is due: a new champion alone is no reason for one.
        from orchestration.automation.warm_start import start_from_champion

        try:
            tags[CHAMPION_TAG] = ", ".join(start_from_champion(root))
        except InputError as error:
            return dg.SkipReason(f"due, but not started: {error}")
    return dg.RunRequest(run_key=key, tags=tags)
