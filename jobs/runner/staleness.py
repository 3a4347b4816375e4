"""What is stale and why: the one answer that the command line and Dagster show."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dvc.stage import PipelineStage

from jobs.runner.dvc_stages import LockedStages
from jobs.runner.layout import StageAddress, stage_of_path
from jobs.runner.ledger import Ledger, Recorded, recorded
from jobs.runner.lineage import read_lineage

Plan = Literal["runs", "runs_if_changed", "does_not_run"]


@dataclass(frozen=True, kw_only=True)
class StageState:
    """State of one address.

    plan: `runs` where the stage itself is stale; `runs_if_changed` where only something upstream is, so that it
        runs if that output really changes; `does_not_run` otherwise.
    reasons: what changed, for `runs`; the stale upstream addresses, for `runs_if_changed`.
    recorded: the ledger entry; None where there is none.
    input_versions: upstream stage -> hash of what was read of it, as recorded.
    """

    address: StageAddress
    plan: Plan
    reasons: tuple[str, ...]
    recorded: Recorded | None
    input_versions: Mapping[str, str]


def lineage_state(root: Path) -> list[StageState]:
    """State of every address, upstream first."""
    lineage = read_lineage(root)
    states: list[StageState] = []
    with Ledger(root).locked_stages() as stages:
        for stage in lineage.stages:
            for address in stage.addresses:
                stale_upstream = tuple(
                    str(state.address)
                    for state in states
                    if state.plan != "does_not_run" and stage.reads(state.address, address.partition)
                )
                states.append(stage_state(stages, address, stale_upstream))
    return states


def stage_state(stages: LockedStages, address: StageAddress, stale_upstream: tuple[str, ...]) -> StageState:
    stage = stages.find(address)
    has_entry = stage.outs[0].hash_info.value is not None
    reasons = tuple(stale_reasons(stages, stage)) if has_entry else ("never run",)
    plan: Plan = "does_not_run"
    if reasons:
        plan = "runs"
    elif stale_upstream:
        plan = "runs_if_changed"
    return StageState(
        address=address,
        plan=plan,
        reasons=reasons or stale_upstream,
        recorded=recorded(stage, address, "unchanged") if has_entry else None,
        input_versions={
            name: str(dependency.hash_info.value)
            for dependency in stage.deps
            if (name := stage_of_path(dependency.def_path))
        },
    )


def stale_reasons(stages: LockedStages, stage: PipelineStage) -> list[str]:
    """Why DVC's test calls a recorded stage changed, one short reason each; empty for an up-to-date one."""
    reasons = ["command changed"] if stage.changed_stage() else []
    for dependency in stage.deps:
        reasons += [f"{path} {what}" for path, what in stages.changes_of(dependency).items()]
    for output in stage.outs:
        reasons += [f"output {path} {what}" for path, what in stages.output_changes(output).items()]
    return reasons
