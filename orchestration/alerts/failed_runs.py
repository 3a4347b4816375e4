"""Alerts of runs that failed and will not be tried again."""

from collections.abc import Iterator, Sequence

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.storage.tags import WILL_RETRY_TAG

from assets.stage_asset import FINAL_TAG
from orchestration.alerts.alert import Alert, dagster_address, iso_time
from orchestration.alerts.state import State
from orchestration.automation.retrying import ATTEMPT_TAG, PARTITION_TAG, RETRY_SENSOR
from orchestration.jobs import PHASES, retraining

RUNS_AT_ONCE = 500
LONGEST_TEXT = 500  # characters
TOLD = {
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
}
RETRIED_JOBS = {*PHASES, retraining.name}


def look_at_runs(instance: dg.DagsterInstance, state: State, retries: int) -> tuple[list[Alert], State]:
    """Alerts, oldest first, and the state after them. retries: how often `retry_failed` tries a run again."""
    found = instance.fetch_run_status_changes(
        dg.DagsterEventType.RUN_FAILURE, limit=RUNS_AT_ONCE, cursor=state.runs, ascending=True
    )
    ids = dict.fromkeys([*state.waiting, *(record.run_id for record in found.records)])
    sensor_runs = is_running(instance, RETRY_SENSOR)
    alerts, waiting = [], []
    for run in filter(None, map(instance.get_run_by_id, ids)):
        if run.tags.get(WILL_RETRY_TAG) == "true":
            continue
        if may_be_retried(run, retries):
            if is_followed(instance, run):
                continue
            if sensor_runs:
                waiting.append(run.run_id)
                continue
        alerts.append(alert_of(instance, run))
    return alerts, state.model_copy(update={"runs": found.cursor, "waiting": tuple(waiting)})


def is_running(instance: dg.DagsterInstance, sensor: str) -> bool:
    states = instance.all_instigator_state(
        instigator_type=InstigatorType.SENSOR, instigator_statuses={InstigatorStatus.RUNNING}
    )
    return any(state.instigator_name == sensor for state in states)


def may_be_retried(run: dg.DagsterRun, retries: int) -> bool:
    attempt = int(run.tags.get(ATTEMPT_TAG, "1"))
    return run.job_name in RETRIED_JOBS and FINAL_TAG not in run.tags and attempt <= retries


def is_followed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a newer run does the same: it will tell of its own failure."""
    tags = {PARTITION_TAG: partition} if (partition := run.tags.get(PARTITION_TAG)) else {}
    newest = instance.get_runs(dg.RunsFilter(job_name=run.job_name, tags=tags), limit=1)
    return bool(newest) and newest[0].run_id != run.run_id


def alert_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Alert:
    """A run that a blocking check stopped is one event: that of the check."""
    records = instance.get_records_for_run(run.run_id, of_type=TOLD).records
    events = [event for record in records if (event := record.event_log_entry.dagster_event)]
    checks, failures = list(failed_checks(events)), list(step_failures(events))
    why = "; ".join(checks or failures) or next(
        filter(None, (event.message for event in events)), "no reason"
    )
    subject = subject_of(run)
    end = instance.get_run_record_by_id(run.run_id)
    ended = (end.end_time if end else None) or 0.0
    return Alert(
        id=f"run {run.run_id}",
        kind="check_failed" if checks else "run_failed",
        subject=subject,
        text=f"{subject}: {'blocking check ' if checks else 'run failed: '}{why}"[:LONGEST_TEXT],
        time=iso_time(ended),
        link=f"{dagster_address()}/runs/{run.run_id}",
    )


def subject_of(run: dg.DagsterRun) -> str:
    """What was run: the job, or the assets that were asked for; and of which partition."""
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    names = ", ".join(assets) if assets and run.job_name not in RETRIED_JOBS else run.job_name
    partition = run.tags.get(PARTITION_TAG)
    return f"{names}@{partition}" if partition else names


def failed_checks(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR:
                yield f"{check.check_name} of {check.asset_key.to_user_string()} failed: {check.description}"


def step_failures(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    """First lines: what follows them is the end of a log."""
    for event in events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            own = data.user_failure_data.description if data.user_failure_data else None
            text = own or (data.error.message if data.error else "")
            yield f"{event.step_key}: {(text.strip() or 'no reason').splitlines()[0]}"
