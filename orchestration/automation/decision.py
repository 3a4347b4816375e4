"""Whether to retrain now, and why or why not. Deciding changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.runner.ledger import value_hash
from jobs.runner.run import read_report
from jobs.runner.staleness import StageState
from orchestration.jobs import RETRAINING
from orchestration.left_out import left_out

TRAINED_ON = {"prepare_sa1b": "tokenizer_stage1", "prepare_referring": "altollm_sft"}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """key: the same for the same data, code and parameters."""

    start: bool
    reason: str
    key: str = ""


def decide(states: Sequence[StageState]) -> Decision:
    """For the schedule: retrain if any stage of the retraining is stale on the data that is ready.

    A partition that was never prepared (its contract failed, or it is being acquired) is left out. One that was, and
    is stale now, is waited for: what would be trained without it would be stale as soon as it has run.
    """
    data = [state for state in states if state.address.stage in TRAINED_ON]
    for stage in TRAINED_ON:
        if not any(state.recorded for state in data if state.address.stage == stage):
            return Decision(start=False, reason=f"there is no data: {stage} has never run")
    waiting = [state for state in data if state.recorded and state.plan != "does_not_run"]
    if waiting:
        return Decision(start=False, reason=f"data is to be brought up to date first: {_named(waiting)}")
    stale = [
        state for state in states if state.address.stage in RETRAINING and state.plan in ("runs", "restored")
    ]
    without = ", ".join(f"{address} ({why})" for address, why in left_out(states).items())
    left = f"; left out: {without}" if without else ""
    if not stale:
        return Decision(start=False, reason=f"nothing changed since the last retraining{left}")
    return Decision(start=True, reason=f"{_named(stale)}{left}", key=_key(stale, data))


def decide_on_new_data(root: Path, profile: str, states: Sequence[StageState], enough: int) -> Decision:
    """For the sensor: retrain if at least `enough` accepted rows have not been trained on."""
    decision = decide(states)
    if not decision.start:
        return decision
    new = _untrained(states)
    if new is None:
        return Decision(start=False, reason="it is not known here what the last training read")
    rows = sum(int(read_report(root, profile, state.address)["figures"]["rows_accepted"]) for state in new)
    reason = f"{rows} accepted rows have not been trained on, and {enough} are enough"
    return Decision(start=rows >= enough, reason=f"{reason}: {decision.reason}", key=decision.key)


def _untrained(states: Sequence[StageState]) -> list[StageState] | None:
    """Prepared partitions in a version that the last training did not read; None where that is not known."""
    new = []
    for stage, trained in TRAINED_ON.items():
        (training,) = (state for state in states if state.address.stage == trained)
        if training.recorded and not training.versions_read:
            return None
        new += [
            state
            for state in states
            if state.address.stage == stage
            and state.recorded
            and training.versions_read.get(str(state.address)) != state.recorded.data_version
        ]
    return new


def _key(stale: Sequence[StageState], data: Sequence[StageState]) -> str:
    versions = {str(state.address): state.recorded.data_version for state in data if state.recorded}
    return value_hash([versions, [[str(state.address), state.why] for state in stale]])


def _named(states: Sequence[StageState], most: int = 3) -> str:
    shown = [f"{state.address} ({state.why})" for state in states[:most]]
    return ", ".join(shown) + (f" and {len(states) - most} more" if len(states) > most else "")
