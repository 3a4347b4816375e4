"""What a report rests on: versions of data and code, contracts, other checks, environments.

Read from the ledger, from the reports of the stages and from telemetry, all as they are now.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.runner.environment import Environment, read_environment
from jobs.runner.ledger import value_hash
from jobs.runner.lineage import Lineage, code_version
from jobs.runner.model_card import Made, made_from
from jobs.runner.run import last_run_folder
from jobs.runner.staleness import Plan, StageState
from orchestration.promotion.decision import CONTRACT_STAGES

MOST_ROWS = 12  # of one stage: where it has more partitions they share a row
SHORT = 12  # characters shown of a hash
PLAN_WORDS: dict[Plan, str] = {
    "runs": "stale",
    "runs_if_changed": "stale if upstream changes",
    "restored": "stale, made before",
    "does_not_run": "up to date",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A recorded output, or all partitions of a stage with many. minutes, device_hours: None where not known."""

    name: str
    data_version: str
    code_version: str
    commits: str
    state: str
    minutes: float | None
    device_hours: float | None


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What became of a data set's rows, and what its contract says of it. Figures are None where not known."""

    name: str
    data_version: str
    rows_read: int | None
    rows_accepted: int | None
    rows_quarantined: int | None
    checks: tuple[dict[str, Any], ...]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check["passed"] for check in self.checks)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """outputs: recorded ones; stale: those of them that are not up to date. environments: each with what ran in it."""

    sources: list[Source]
    contracts: list[Contract]
    contracts_left_out: int
    checks: list[tuple[str, dict[str, Any]]]
    environments: list[tuple[Environment, list[str]]]
    outputs: int
    stale: int


def read_provenance(lineage: Lineage, states: Sequence[StageState]) -> Provenance:
    made = [(state, made_from(lineage, state)) for state in states if state.recorded is not None]
    contracts = [_contract(one) for _, one in made if one.address.stage in CONTRACT_STAGES]
    shown = _most_telling(contracts)
    return Provenance(
        sources=_sources(lineage, made),
        contracts=shown,
        contracts_left_out=len(contracts) - len(shown),
        checks=[
            (str(one.address), check)
            for _, one in made
            if one.address.stage not in CONTRACT_STAGES
            for check in one.checks
        ],
        environments=_environments(lineage, [one for _, one in made]),
        outputs=len(made),
        stale=sum(state.plan != "does_not_run" for state, _ in made),
    )


def _sources(lineage: Lineage, made: Sequence[tuple[StageState, Made]]) -> list[Source]:
    stages: dict[str, list[tuple[StageState, Made]]] = defaultdict(list)
    for state, one in made:
        stages[state.address.stage].append((state, one))
    rows = []
    for name, outputs in stages.items():
        code = code_version(lineage.root, lineage.stage(name))[:SHORT]
        if len(outputs) <= MOST_ROWS:
            rows += [_source(str(state.address), code, [(state, one)]) for state, one in outputs]
        else:
            rows.append(_source(f"{name}, {len(outputs)} partitions", code, outputs))
    return rows


def _source(name: str, code: str, outputs: Sequence[tuple[StageState, Made]]) -> Source:
    runs = [one.run for _, one in outputs if one.run is not None]
    commits = dict.fromkeys(_short_commit(run.git_commit) for run in runs)
    versions = {str(state.address): one.data_version for state, one in outputs}
    hours = [one.device_hours for _, one in outputs if one.device_hours is not None]
    return Source(
        name=name,
        data_version=_short(next(iter(versions.values())) if len(versions) == 1 else value_hash(versions)),
        code_version=code,
        commits=", ".join(commits),
        state=", ".join(dict.fromkeys(PLAN_WORDS[state.plan] for state, _ in outputs)),
        minutes=sum(run.seconds for run in runs) / 60 if runs else None,
        device_hours=sum(hours) if hours else None,
    )


def _short(version: str) -> str:
    return version.removesuffix(".dir")[:SHORT]


def _short_commit(commit: str) -> str:
    return commit[:SHORT] + ("-dirty" if commit.endswith("-dirty") else "")


def _contract(made: Made) -> Contract:
    return Contract(
        name=str(made.address),
        data_version=_short(made.data_version),
        rows_read=made.figures.get("rows_read"),
        rows_accepted=made.figures.get("rows_accepted"),
        rows_quarantined=made.figures.get("rows_quarantined"),
        checks=tuple(made.checks),
    )


def _most_telling(contracts: Sequence[Contract]) -> list[Contract]:
    """All, or of more than can be read all that did not pass and the first others."""
    failed = [one for one in contracts if not one.passed]
    passed = [one for one in contracts if one.passed]
    shown = {id(one) for one in [*failed, *passed[: max(0, 2 * MOST_ROWS - len(failed))]]}
    return [one for one in contracts if id(one) in shown]


def _environments(lineage: Lineage, made: Sequence[Made]) -> list[tuple[Environment, list[str]]]:
    found: list[tuple[Environment, list[str]]] = []
    for one in made:
        environment = read_environment(last_run_folder(lineage.root, one.address))
        if environment is None:
            continue
        known = next((stages for other, stages in found if other == environment), None)
        if known is None:
            found.append((environment, [one.address.stage]))
        elif one.address.stage not in known:
            known.append(one.address.stage)
    return found
