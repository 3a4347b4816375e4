"""What would run and why: the one answer that the command line and Dagster show.

The stages are walked upstream first. Each is compared with its record as DVC compares it, with one difference: what it
reads is not taken as it lies there now, but as it will be when its turn comes, as far as that is known. An output that
was removed or edited and is still in the cache will be put back; the output of a stage that runs is not known, so what
reads it is judged as if it stayed the same, and runs only if it does not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dvc.dependency.param import ParamsDependency
from dvc.output import Output
from dvc.stage import PipelineStage
from dvc_data.hashfile.hash_info import HashInfo

from jobs.runner.changes import Change, code_versions, parameter_changes, version_changes
from jobs.runner.dvc_stages import LockedStages
from jobs.runner.layout import StageAddress, stage_of_path
from jobs.runner.ledger import Ledger, Recorded, fingerprint, recorded
from jobs.runner.lineage import Lineage, Stage, read_lineage
from jobs.runner.run import LastRun, read_last_run
from jobs.runner.verdict import read_refusal

Plan = Literal["runs", "runs_if_changed", "restored", "does_not_run"]


@dataclass(frozen=True, kw_only=True)
class StageState:
    """State of one address.

    plan: `runs` where the stage itself is stale; `runs_if_changed` where only something upstream is, so that it
        runs if that output really changes; `restored` where it is stale, and the cache holds the result that it had
        with the same inputs; `does_not_run` otherwise.
    changes: why it is stale; empty for `does_not_run`, and for what only follows others.
    waits_for: the upstream addresses whose output may change.
    refused: why the newest try with these inputs was refused (wrong input, a blocking check); empty where it was not.
    recorded: the ledger entry; None where there is none.
    input_versions: upstream stage -> hash of what was read of it, as recorded.
    versions_read: upstream address -> data version that the recorded run read; empty where it was made elsewhere.
    last_run: telemetry of the newest run here; None where there was none.
    """

    address: StageAddress
    plan: Plan
    changes: tuple[Change, ...] = ()
    waits_for: tuple[StageAddress, ...] = ()
    refused: str = ""
    recorded: Recorded | None
    input_versions: Mapping[str, str]
    versions_read: Mapping[str, str] = field(default_factory=dict)
    last_run: LastRun | None = None

    @property
    def why(self) -> str:
        """One line for people; empty where nothing is to be done."""
        reasons = ", ".join(map(str, self.changes))
        if self.refused:
            reasons += f"; refused when it last ran: {self.refused}"
        if self.plan != "runs_if_changed":
            return reasons
        condition = f"if the output of {shortened(self.waits_for)} changes"
        return f"{condition} (otherwise restored: {reasons})" if reasons else condition

    @property
    def stands(self) -> bool:
        """Whether what is recorded belongs to code, parameters and inputs as they are, unless an input will change."""
        return self.recorded is not None and not self.changes


def shortened(addresses: tuple[StageAddress, ...], most: int = 3) -> str:
    """The first addresses, and how many more."""
    shown = ", ".join(map(str, addresses[:most]))
    return (
        f"{shown} or {len(addresses) - most} more" if len(addresses) > most else shown.replace(", ", " or ")
    )


def lineage_state(root: Path, parameters: Mapping[str, Any] | None = None) -> list[StageState]:
    """State of every address, upstream first.

    parameters: to be taken for the content of `params.yaml`, to see what a change would mean; None for the file's.
    """
    lineage = read_lineage(root)
    with Ledger(root).locked_stages(parameters) as stages:
        forecast = _Forecast(lineage, stages)
        return [
            forecast.next_state(stage, address) for stage in lineage.stages for address in stage.addresses
        ]


@dataclass(frozen=True, kw_only=True)
class _Expected:
    """What an output will be when its turn has come, if stages that run leave what they left before.

    hash: None where there will be none. as_on_disk: whether it lies there so already.
    """

    output: Output
    hash: HashInfo | None
    as_on_disk: bool


class _Forecast:
    """Walks the addresses, upstream first, and knows of each one seen what its output will be."""

    def __init__(self, lineage: Lineage, stages: LockedStages) -> None:
        self._lineage = lineage
        self._stages = stages
        self._plans: dict[StageAddress, Plan] = {}
        self._expected: dict[StageAddress, _Expected] = {}

    def next_state(self, declared: Stage, address: StageAddress) -> StageState:
        stage = self._stages.find(address)
        output = stage.outs[0]
        entry = recorded(stage, address, "unchanged") if output.hash_info else None
        last_run = read_last_run(self._lineage.root, address)
        made_here = last_run if last_run and last_run.fingerprint == fingerprint(stage) else None
        upstream = self._upstream(declared, address)
        waits_for = tuple(one for one in upstream if self._plans[one] in ("runs", "runs_if_changed"))
        inputs = self._inputs(stage, upstream)
        input_versions = {
            name: str(dependency.hash_info.value)
            for dependency in stage.deps
            if (name := stage_of_path(dependency.def_path))
        }
        on_disk = self._stages.output_changes(output)
        own, of_output = [self._never_run(address)], []
        if entry is not None:
            own = list(self._own_changes(stage, inputs, upstream, made_here))
            of_output = [_output_change(path, what) for path, what in on_disk.items()]
        changes = own + of_output

        plan: Plan = "runs_if_changed" if waits_for else "does_not_run"
        expected = output.hash_info or None
        if changes:
            cached = self._stages.cached_output(stage, inputs if own else None)
            plan = "runs" if cached is None else "runs_if_changed" if waits_for else "restored"
            expected = cached or expected
        self._plans[address] = plan
        self._expected[address] = _Expected(
            output=output,
            hash=expected,
            as_on_disk=not on_disk and expected == (output.hash_info or None),
        )
        return StageState(
            address=address,
            plan=plan,
            changes=tuple(changes),
            waits_for=waits_for,
            refused=self._refusal(stage, address) if plan == "runs" else "",
            recorded=entry,
            input_versions=input_versions,
            versions_read=made_here.inputs if made_here else {},
            last_run=last_run,
        )

    def _refusal(self, stage: PipelineStage, address: StageAddress) -> str:
        """stage: with the inputs and parameters that it would run with now, which `cached_output` has left in it."""
        return read_refusal(self._lineage.root / ".work" / address.folder_name / fingerprint(stage))

    def _upstream(self, declared: Stage, address: StageAddress) -> list[StageAddress]:
        return [
            one
            for name in declared.upstream
            for one in self._lineage.stage(name).addresses
            if declared.reads(one, address.partition)
        ]

    def _never_run(self, address: StageAddress) -> Change:
        profile = self._stages.recorded_profile(address)
        if profile is None or profile == self._lineage.profile:
            return Change(kind="never_run", subject=str(address), after="has never run")
        return Change(kind="parameter", subject="profile", before=profile, after=self._lineage.profile)

    def _inputs(self, stage: PipelineStage, upstream: list[StageAddress]) -> dict[str, HashInfo | None]:
        """Path of each dependency that is no parameter -> the hash it will have; None where it will be missing."""
        return {
            dependency.def_path: self._input(dependency, upstream)
            for dependency in stage.deps
            if not isinstance(dependency, ParamsDependency)
        }

    def _input(self, dependency: Output, upstream: list[StageAddress]) -> HashInfo | None:
        name = stage_of_path(dependency.def_path)
        made = [self._expected[address] for address in upstream if address.stage == name]
        if all(one.as_on_disk for one in made):
            return self._stages.hash_of(dependency)
        if len(made) == 1 and made[0].output.def_path == dependency.def_path:
            return made[0].hash
        parts = {one.output.def_path: one.hash for one in made if not one.as_on_disk}
        return self._stages.hash_with(dependency, parts)

    def _own_changes(
        self,
        stage: PipelineStage,
        inputs: Mapping[str, HashInfo | None],
        upstream: list[StageAddress],
        made_here: LastRun | None,
    ) -> Iterator[Change]:
        """Everything but the output. made_here: the run that is recorded, where it ran here."""
        if stage.changed_stage():
            yield Change(kind="command", subject="the command", after="changed")
        for dependency in stage.deps:
            path = dependency.def_path
            if isinstance(dependency, ParamsDependency):
                yield from parameter_changes(dependency, self._stages.parameters_of(dependency))
            elif dependency.hash_info != inputs[path]:
                found = list(self._parts_changed(path, upstream, made_here)) if made_here else []
                what = (
                    "is missing" if inputs[path] is None else "changed" if dependency.hash_info else "is new"
                )
                name = stage_of_path(path)
                yield from found or [
                    Change(kind="input" if name else "code", subject=name or path, after=what)
                ]

    def _parts_changed(self, path: str, upstream: list[StageAddress], last_run: LastRun) -> Iterator[Change]:
        """Which files of code, or partitions of an input, are others than those that the recorded run read."""
        name = stage_of_path(path)
        if name is None:
            read = {
                file: version for file, version in last_run.code.items() if f"{file}/".startswith(f"{path}/")
            }
            yield from version_changes("code", read, code_versions(self._lineage.root, path))
            return
        read = {
            key: version for key, version in last_run.inputs.items() if StageAddress.parse(key).stage == name
        }
        now = {
            str(address): None if (will_be := self._expected[address].hash) is None else will_be.value
            for address in upstream
            if address.stage == name
        }
        yield from version_changes("input", read, {key: value for key, value in now.items() if value})


def _output_change(path: str, what: str) -> Change:
    words = {"deleted": "was removed", "modified": "was edited", "not in cache": "is not in the cache"}
    return Change(kind="output", subject=path, after=words.get(what, what))
