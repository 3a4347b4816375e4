"""`alto plan`: what a change of parameters, code or data means, before anything runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from data_contracts.errors import InputError
from jobs.runner.lineage import read_yaml
from jobs.runner.staleness import Plan, StageState, lineage_state
from orchestration.profiles import override

WORDS: dict[Plan, str] = {
    "runs": "runs",
    "runs_if_changed": "runs if changed",
    "restored": "restored",
    "does_not_run": "does not run",
}


class Row(BaseModel):
    """One stage or partition.

    why: one line. changes: the same in parts. waits_for: addresses on whose output `runs_if_changed` depends.
    seconds, device_hours: of the last run; None where there was none here. estimated: they are of the middle one of
        the stage's other partitions, for this one has not run.
    """

    address: str
    plan: Plan
    why: str
    changes: list[dict[str, Any]]
    waits_for: list[str]
    seconds: float | None
    device_hours: float | None
    estimated: bool


class Cost(BaseModel):
    """What rows took last time, added up. unknown: how many of them no time is known of."""

    rows: int
    seconds: float
    device_hours: float
    unknown: int


class PlanTable(BaseModel):
    """rows: upstream first."""

    rows: list[Row]
    runs: Cost
    runs_if_changed: Cost


def make_plan(root: Path, changes: Sequence[str] = ()) -> PlanTable:
    """changes: `section.key=value`, to be taken as if params.yaml said so. Raises InputError for an unknown one."""
    return plan_table(lineage_state(root, changed_parameters(root, changes) if changes else None))


def changed_parameters(root: Path, changes: Sequence[str]) -> dict[str, Any]:
    """The content of params.yaml with some values replaced."""
    parameters: dict[str, Any] = read_yaml(root / "params.yaml")
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or key == "profile":
            raise InputError(f"--set {change}: give section.key=value; a profile is set by `alto profile`")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {change}: the value is not valid YAML") from error
        for name in reversed(key.split(".")):
            value = {name: value}
        parameters = override(parameters, value, f"--set {change}")
    return parameters


def plan_table(states: Sequence[StageState]) -> PlanTable:
    rows = [_row(state, states) for state in states]
    return PlanTable(rows=rows, runs=_cost(rows, "runs"), runs_if_changed=_cost(rows, "runs_if_changed"))


def _row(state: StageState, states: Sequence[StageState]) -> Row:
    run = state.last_run
    if run is None:
        of_stage = [
            one.last_run for one in states if one.last_run and one.address.stage == state.address.stage
        ]
        others = sorted(of_stage, key=lambda one: one.seconds)
        run = others[len(others) // 2] if others else None
    return Row(
        address=str(state.address),
        plan=state.plan,
        why=state.why,
        changes=[change.__dict__ for change in state.changes],
        waits_for=[str(address) for address in state.waits_for],
        seconds=run.seconds if run else None,
        device_hours=run.device_hours if run else None,
        estimated=run is not None and state.last_run is None,
    )


def _cost(rows: Sequence[Row], plan: Plan) -> Cost:
    chosen = [row for row in rows if row.plan == plan]
    return Cost(
        rows=len(chosen),
        seconds=sum(row.seconds or 0.0 for row in chosen),
        device_hours=sum(row.device_hours or 0.0 for row in chosen),
        unknown=sum(row.seconds is None for row in chosen),
    )


def text_table(table: PlanTable) -> str:
    """For a terminal: a line a row, and the sums."""
    width = max(len(row.address) for row in table.rows)
    lines = [f"{'':{width}}  {'plan':15}  {'took':>9}  {'device h':>8}  why"]
    for row in table.rows:
        took = f"{'~' * row.estimated}{duration(row.seconds)}"
        hours = "–" if row.device_hours is None else f"{row.device_hours:.3f}"
        lines.append(
            f"{row.address:{width}}  {WORDS[row.plan]:15}  {took:>9}  {hours:>8}  {row.why}".rstrip()
        )
    return "\n".join(
        [*lines, "", cost_line("runs", table.runs), cost_line("runs if changed", table.runs_if_changed)]
    )


def cost_line(what: str, cost: Cost) -> str:
    unknown = f"; of {cost.unknown} no time is known" if cost.unknown else ""
    known = cost.rows > cost.unknown
    took = f", {duration(cost.seconds)} and {cost.device_hours:.3f} device hours last time" if known else ""
    return f"{what}: {cost.rows}{took}{unknown}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
