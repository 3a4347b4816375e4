"""`dvc.lock` as the ledger of what was made from what, read and written without holding DVC's lock during a job.

A record holds the hashes of the inputs the job read and of the output it left. The order of steps matters
(docs/two_doors.md): old outputs are removed before anything is hashed, the run cache is asked before the new
inputs are saved, and DVC's read/write lock on paths is taken only to begin, never to record, because a
`dvc repro` waiting for this very stage holds it.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dvc.dependency.param import ParamsDependency
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.rwlock import rwlock
from dvc.stage import PipelineStage
from dvc.stage.cache import RunCacheNotFoundError
from dvc.stage.serialize import to_single_stage_lockfile
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta

from data_contracts.errors import InputError, first_line
from jobs.runner.dvc_stages import LockedStages
from jobs.runner.exchange import SECONDS_UNREACHABLE, until_reachable
from jobs.runner.experiments import running_experiment
from jobs.runner.job_spec import JobSpec, Resources, WorkTree
from jobs.runner.layout import (
    StageAddress,
    checked_item,
    checked_profile,
    output_folder,
    parameter_section,
    stage_folder,
    stage_of_path,
)
from jobs.runner.lineage import read_yaml
from jobs.runner.remote_outputs import fetch_folder, recorded_inputs, save_recorded_inputs, verify_pushed
from jobs.runner.stage_lock import StageLock
from jobs.runner.staged_order import ReturnedOutput, read_returned
from jobs.runner.worker import parse_config

Origin = Literal["unchanged", "restored", "ran"]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A ledger entry and how it came about in this call.

    data_version: hash of the output. entry_hash: hash of the whole entry, inputs included. fingerprint: of the job
    that makes it, as in JobSpec.
    """

    address: StageAddress
    data_version: str
    entry_hash: str
    how: Origin
    fingerprint: str = ""


class InputsMoved(Exception):
    """An input changed while the job ran, so its result belongs to no input that can be named."""


class Ledger:
    """The records of one project root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def locked_stages(self, parameters: Mapping[str, Any] | None = None) -> Iterator[LockedStages]:
        """DVC's stages under its repository lock, waited for. Hold it only for moments.

        parameters: to be taken for the content of `params.yaml`; None for what the file says.
        """
        # DVC resolves stage files against the working directory, whatever root it was given.
        with chdir(self.root), Repo(_wait_for_lock=True) as repo, lock_repo(repo):
            yield LockedStages(repo, parameters)

    def begin(self, address: StageAddress, stage_lock: StageLock) -> Recorded | JobSpec:
        """What there is to do for a stage whose lock is held: nothing (with its entry), or this job.

        Where a job is to run in this work tree, its old output has been removed. Raises InputError for a missing input,
        Unreachable where a remote that has to be asked stays away.
        """
        while True:
            try:
                return until_reachable(SECONDS_UNREACHABLE, lambda: self._begin(address))
            except LockError as error:
                # A `dvc repro` of this stage may itself be waiting for the stage lock: let it go first.
                print(f"{address}: waiting for DVC ({str(error).splitlines()[0]})", file=sys.stderr)
                stage_lock.release()
                time.sleep(1.0)
                stage_lock.acquire()

    def _begin(self, address: StageAddress) -> Recorded | JobSpec:
        with self.locked_stages() as stages:
            stage = stages.find(address)
            with path_locks(stage):
                return self._decide(stages, stage, address)

    def _decide(
        self, stages: LockedStages, stage: PipelineStage, address: StageAddress
    ) -> Recorded | JobSpec:
        if not stages.is_changed(stage):
            return recorded(stage, address, "unchanged")
        # Nothing is made here in that case, and the run cache knows of nothing else.
        if self.resources().work_tree == "staged":
            return self.job_spec(stages, stage, address)
        require_inputs(stages, stage)
        remove_outputs(stage)
        try:
            stages.repo.stage_cache.restore(stage)
        except RunCacheNotFoundError:
            return self.job_spec(stages, stage, address)
        stage.save_deps()
        save_outputs(stages, stage)
        return recorded(stage, address, "restored")

    def current(self, address: StageAddress) -> Recorded | None:
        """The entry of an address whose output and inputs are as recorded; None where it is stale."""
        with self.locked_stages() as stages:
            stage = stages.find(address)
            return None if stages.is_changed(stage) else recorded(stage, address, "unchanged")

    def accept(self, address: StageAddress) -> tuple[Recorded, list[str]]:
        """Record the output again with the inputs as they are now; also returns which inputs had changed.

        Raises InputError where there is no entry, or the output is not the recorded one.
        """
        with self.locked_stages() as stages:
            stage = stages.find(address)
            if stage.outs[0].hash_info.value is None or any(output.status() for output in stage.outs):
                raise InputError(
                    f"{address}: the output is not the one in dvc.lock, so there is nothing to accept"
                )
            require_inputs(stages, stage)
            before = input_hashes(stage)
            stage.save_deps()
            now = input_hashes(stage)
            save_outputs(stages, stage)
            return recorded(stage, address, "unchanged"), changed_keys(before, now)

    def record(self, spec: JobSpec) -> Recorded:
        """Move the finished output into place, or leave it in the remote where the job pushed it, and write the entry.

        Raises InputsMoved, leaving output and ledger as they were, if an input changed since `begin`.
        """
        if spec.work_tree == "staged":
            return self._record_returned(spec)
        with self.locked_stages() as stages:
            stage = stages.find(spec.address)
            self._refuse_moved(stages, stage, spec)
            publish(spec.staging, self.root / stage.outs[0].def_path)
            save_outputs(stages, stage)
            return recorded(stage, spec.address, "ran")

    def _record_returned(self, spec: JobSpec) -> Recorded:
        """Raises InputError, and forgets the entry, where it is not what the job can have made. Raises Unreachable,
        and keeps it, where the remote stays away."""
        returned = self._trusted(spec)
        with self.locked_stages() as stages:
            stage = stages.find(spec.address)
            self._refuse_moved(stages, stage, spec)
            remove_outputs(stage)
            remove_empty_folders(stage)
            take_over(stage, returned)
            stages.write_entry(stage)
            return recorded(stage, spec.address, "ran")

    def _trusted(self, spec: JobSpec) -> ReturnedOutput:
        path = output_folder(spec.profile, spec.address).as_posix()
        try:
            returned = read_returned(spec, path)
            until_reachable(SECONDS_UNREACHABLE, lambda: verify_pushed(self.root, returned))
        except ValueError as error:
            spec.returned.unlink()
            raise InputError(
                f"{spec.address}: the entry that the job returned is refused, nothing is recorded: {first_line(error)}"
            ) from None
        return returned

    def _refuse_moved(self, stages: LockedStages, stage: PipelineStage, spec: JobSpec) -> None:
        save_inputs(stages, stage, spec.work_tree)
        refuse_moved_inputs(spec, input_hashes(stage))

    def refuse_other_inputs(self, spec: JobSpec) -> None:
        """In a clone, before the job begins. Raises InputsMoved where it has other inputs than the job is to read."""
        with self.locked_stages() as stages:
            self._refuse_moved(stages, stages.find(spec.address), spec)

    def entries_read_by(self, address: StageAddress) -> dict[str, Any]:
        """`dvc.lock` entries of the stages whose outputs an address reads, by stage name."""
        with self.locked_stages() as stages:
            outputs = recorded_inputs(stages, stages.find(address))
            return {output.stage.addressing: to_single_stage_lockfile(output.stage) for output in outputs}

    def job_inside_dvc(self, address: StageAddress) -> JobSpec | None:
        """The job for a stage that a running `dvc repro` has begun; None if another run has recorded it."""
        with self.locked_stages() as stages:
            stage = stages.find(address)
            return self.job_spec(stages, stage, address) if stages.is_changed(stage) else None

    def publish_inside_dvc(self, spec: JobSpec) -> None:
        """Move the finished output into place, or fetch it, for the `dvc repro` that records it. Raises InputsMoved."""
        returned = self._trusted(spec) if spec.work_tree == "staged" else None
        with self.locked_stages() as stages:
            stage = stages.find(spec.address)
            self._refuse_moved(stages, stage, spec)
            if returned is None:
                publish(spec.staging, self.root / stage.outs[0].def_path)
            else:
                take_over(stage, returned)
                fetch_folder(stages.repo, stage.outs[0].hash_info)
                stage.outs[0].checkout(force=True)

    def resources(self) -> Resources:
        """Raises InputError where the section is wrong."""
        return parse_config(Resources, "resources", read_yaml(self.root / "params.yaml")["resources"])

    def job_spec(self, stages: LockedStages, stage: PipelineStage, address: StageAddress) -> JobSpec:
        """Everything the job may read, as it is now."""
        resources = self.resources()
        save_inputs(stages, stage, resources.work_tree)
        parameters = tracked_parameters(stage)
        profile = checked_profile(read_yaml(self.root / "params.yaml")["profile"])
        named = fingerprint(stage)
        upstream = sorted({name for dep in stage.deps if (name := stage_of_path(dep.def_path))})
        return JobSpec(
            stage=address.stage,
            partition=address.partition,
            partition_items=partition_items(stage),
            profile=profile,
            fingerprint=named,
            parameters=parameters.get(parameter_section(address.stage), {}),
            seed=parameters["seed"],
            launcher=resources.launcher_of(address.stage),
            work_tree=resources.work_tree,
            needs=resources.needs_of(address.stage),
            processes=resources.processes.get(address.stage, 1),
            workers=resources.workers.get(address.stage, 0),
            copies=resources.copies,
            inputs={name: self.root / stage_folder(profile, name) for name in upstream},
            input_hashes=input_hashes(stage),
            input_versions={
                key: str(output.hash_info.value)
                for dependency in stage.deps
                for key, output in stages.outputs_in(dependency).items()
                if output.hash_info
            },
            experiment=running_experiment(),
            work=self.root / ".work" / address.folder_name / named,
        )


@contextmanager
def path_locks(stage: PipelineStage) -> Iterator[None]:
    """DVC's lock on the stage's paths. Raises dvc.lock.LockError where another process has one."""
    with rwlock(
        stage.repo.tmp_dir,
        stage.repo.fs,
        " ".join(sys.argv),
        [dependency.fs_path for dependency in stage.deps],
        [output.fs_path for output in stage.outs],
        stage.repo.config["core"].get("hardlink_lock", False),
    ):
        yield


def save_inputs(stages: LockedStages, stage: PipelineStage, work_tree: WorkTree) -> None:
    """Take the inputs' hashes, as they are here or as they are recorded. Raises InputError for what is missing."""
    if work_tree == "staged":
        save_recorded_inputs(stages, stage)
    else:
        require_inputs(stages, stage)
        stage.save_deps()


def take_over(stage: PipelineStage, returned: ReturnedOutput) -> None:
    """As DVC's `save_outs`, for an output that lies in the remote."""
    (output,) = stage.outs
    output.hash_info = HashInfo(returned.hash, returned.md5)
    output.meta = Meta(isdir=True, size=returned.size, nfiles=returned.nfiles)
    stage.md5 = stage.compute_md5()


def remove_empty_folders(stage: PipelineStage) -> None:
    """Above removed outputs: DVC takes an empty folder for a changed input, a missing one for one that is remote."""
    for output in stage.outs:
        for folder in list(Path(output.fs_path).parents)[:2]:
            with suppress(OSError):  # not empty, or not there
                folder.rmdir()


def remove_outputs(stage: PipelineStage) -> None:
    """Outputs may be links into the cache: they are removed, never written over."""
    for output in stage.outs:
        output.remove(ignore_remove=False)


def require_inputs(stages: LockedStages, stage: PipelineStage) -> None:
    """Raises InputError naming every dependency or parameter that is not there."""
    missing = []
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency):
            keys = set(dependency.params) - set(dependency.read_params())
            missing += [f"parameter {key} of {dependency.def_path}" for key in sorted(keys)]
        elif not dependency.exists:
            missing.append(dependency.def_path)
        else:
            missing += stages.missing_partitions(dependency)
    if missing:
        raise InputError(
            f"{stage.addressing} needs {', '.join(missing)}: run the stage that makes it, restore the file,"
            " or `dvc pull` it from the remote"
        )


def save_outputs(stages: LockedStages, stage: PipelineStage) -> None:
    """Hash and cache the outputs, fill the run cache and write the `dvc.lock` entry."""
    stage.save_outs()
    stage.md5 = stage.compute_md5()
    stages.repo.stage_cache.save(stage)
    for output in stage.outs:
        output.commit()
    stages.write_entry(stage)


def recorded(stage: PipelineStage, address: StageAddress, how: Origin) -> Recorded:
    entry = to_single_stage_lockfile(stage)
    return Recorded(
        address=address,
        data_version=str(stage.outs[0].hash_info.value),
        entry_hash=value_hash(entry),
        how=how,
        fingerprint=fingerprint(stage),
    )


def tracked_parameters(stage: PipelineStage) -> dict[str, Any]:
    """Nested dictionary of exactly the `params.yaml` values that the stage lists."""
    nested: dict[str, Any] = {}
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency) and dependency.def_path == "params.yaml":
            for key, value in dependency.hash_info.value.items():
                *sections, name = key.split(".")
                target = nested
                for section in sections:
                    target = target.setdefault(section, {})
                target[name] = value
    return nested


def partition_items(stage: PipelineStage) -> tuple[str, ...]:
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency) and dependency.def_path == "partitions.yaml":
            (items,) = dependency.hash_info.value.values()
            return tuple(checked_item(item) for item in items)
    return ()


def input_hashes(stage: PipelineStage) -> dict[str, str]:
    """Dependency path (`params.yaml:key` for parameters) -> hash."""
    hashes: dict[str, str] = {}
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency):
            for key, value in (dependency.hash_info.value or {}).items():
                hashes[f"{dependency.def_path}:{key}"] = value_hash(value)
        else:
            hashes[dependency.def_path] = str(dependency.hash_info.value)
    return hashes


def fingerprint(stage: PipelineStage) -> str:
    """Of command, parameters and inputs that the stage has, recorded or saved."""
    return value_hash([stage.cmd, input_hashes(stage)])


def value_hash(value: Any) -> str:
    return hashlib.md5(json.dumps(value, sort_keys=True).encode()).hexdigest()


def changed_keys(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


def refuse_moved_inputs(spec: JobSpec, now: Mapping[str, str]) -> None:
    moved = changed_keys(spec.input_hashes, now)
    if moved:
        raise InputsMoved(
            f"{spec.address}: refused, because inputs changed while the job ran: {', '.join(moved)}. Run it again."
        )


def publish(staging: Path, output: Path) -> None:
    """Rename the finished folder into place."""
    if output.exists():
        shutil.rmtree(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    os.rename(staging, output)
