"""What has been seen and what is still to be sent, kept in Dagster's database so that nothing is lost or sent twice."""

import dagster as dg
from pydantic import BaseModel

from orchestration.alerts.alert import Alert

KEY = "alto/alerts"


class Pending(BaseModel):
    """An alert that one destination has not got. since: seconds since the epoch."""

    alert: Alert
    destination: str
    since: float


class State(BaseModel):
    """runs: position in the log of failed runs. waiting: failed runs that may be tried again.

    decisions: of promotion, (version and kind) -> what was noted; None before the first look.
    too_old: asset -> its last materialization when it was told. orphans: jobs that were told.
    """

    runs: str
    waiting: tuple[str, ...] = ()
    decisions: dict[str, str] | None = None
    too_old: dict[str, int] = {}
    orphans: tuple[str, ...] = ()
    pending: tuple[Pending, ...] = ()


def load(instance: dg.DagsterInstance) -> State:
    """As kept; at first, what has happened before is not told."""
    kept = instance.daemon_cursor_storage.get_cursor_values({KEY}).get(KEY)
    if kept:
        return State.model_validate_json(kept)
    newest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1)
    return State(runs=newest.cursor)


def keep(instance: dg.DagsterInstance, state: State) -> None:
    instance.daemon_cursor_storage.set_cursor_values({KEY: state.model_dump_json()})


def forget(instance: dg.DagsterInstance) -> None:
    """Begin anew next time."""
    if instance.daemon_cursor_storage.get_cursor_values({KEY}).get(KEY):
        instance.daemon_cursor_storage.set_cursor_values({KEY: ""})
