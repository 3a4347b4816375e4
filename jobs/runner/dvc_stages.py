"""DVC's view of the stages while its repository lock is held: every file is read once, for however many stages.

With a thousand shards `dvc.lock` has more than thirty thousand lines. DVC reads it again for each stage it looks up,
`params.yaml` and `partitions.yaml` for each stage whose parameters it compares, and rewrites it with its slowest parser
for each entry; every stage asks for the hashes of the same code files, and an output is hashed again for each stage
that reads it. The answers here are DVC's own.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dvc.dependency.param import ParamsDependency
from dvc.dvcfile import PROJECT_FILE, load_file
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.stage.cache import _get_cache_hash
from dvc.stage.exceptions import StageNotFound
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import load_path, parse_yaml
from dvc_data.hashfile.build import build
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError

from data_contracts.errors import InputError
from jobs.runner.layout import StageAddress, stage_of_path
from jobs.runner.lock_file import ParsedLock, with_entry
from jobs.runner.whole_file import write_whole


class LockedStages:
    """The stages of a repository whose lock is held; forget it with the lock."""

    def __init__(self, repo: Repo, parameters: Mapping[str, Any] | None = None) -> None:
        """parameters: to be taken for the content of `params.yaml`; None for what the file says."""
        self.repo = repo
        self._file = load_file(repo, PROJECT_FILE)
        self._lock = self._file._lockfile
        self._parsed_lock = ParsedLock(Path(self._lock.path), Path(repo.tmp_dir))
        self._file.lockfile_contents = self._parsed_lock.content(self._lock.load)
        self._stages = self._file.stages
        # With a remote, what is recorded and not here counts as there, as with `dvc repro --allow-missing`.
        self._missing_is_remote = bool(repo.config["core"].get("remote"))
        self._parameter_files: dict[str, Any] = {}
        if parameters is not None:
            self._parameter_files[str(Path(repo.root_dir, "params.yaml"))] = parameters
        self._hashes: dict[str, HashInfo | None] = {}

    def find(self, address: StageAddress) -> PipelineStage:
        """DVC's stage of an address. Raises InputError naming what `partitions.yaml` lacks."""
        if address.partition is None and self._stages.is_foreach_or_matrix_generated(address.stage):
            raise InputError(f"{address.stage} is partitioned: name a partition (see partitions.yaml)")
        try:
            stage = self._stages[str(address)]
        except StageNotFound as error:
            raise InputError(
                f"{address} is not in dvc.yaml: is its partition listed in partitions.yaml?"
            ) from error
        for dependency in stage.deps:
            if not dependency.hash_info:  # DVC takes what the lock does not name for one of an old version
                dependency.update_legacy_hash_name(force=True)
        return stage

    def is_changed(self, stage: PipelineStage) -> bool:
        """DVC's own test (`Stage.changed`) without its lock on paths."""
        return (
            stage.changed_stage()
            or any(self.changes_of(dependency) for dependency in stage.deps)
            or any(self.output_changes(output) for output in stage.outs)
        )

    def output_changes(self, output: Output) -> Mapping[str, str]:
        """What `output.status()` says."""
        if output.hash_info and output.changed_cache():
            change = "not in cache"
        elif not output.exists:
            change = "deleted"
        elif self._hash_here(output) != output.hash_info:
            return {output.def_path: "modified"}
        else:
            return {}
        return {} if self._missing_is_remote else {output.def_path: change}

    def _hash_here(self, output: Output) -> HashInfo | None:
        """Of an output or a dependency that exists."""
        path = output.def_path
        if path not in self._hashes:
            self._hashes[path] = output.get_hash()
        return self._hashes[path]

    def outputs_in(self, dependency: Output) -> dict[str, Output]:
        """Address -> output, of the stages that make a dependency: one, or all partitions below a folder."""
        name = stage_of_path(dependency.def_path)
        if name is None:
            return {}
        keys = [key for key in self._stages if key == name or key.startswith(f"{name}@")]
        outputs = {key: self._stages[key].outs[0] for key in keys}
        return {
            key: output
            for key, output in outputs.items()
            if f"{output.def_path}/".startswith(f"{dependency.def_path}/")
        }

    def missing_partitions(self, dependency: Output) -> list[str]:
        """Recorded outputs that are not here, of those that a folder above partitions should hold."""
        outputs = self.outputs_in(dependency).values()
        below = [output for output in outputs if output.def_path != dependency.def_path]
        return [output.def_path for output in below if output.hash_info and not output.exists]

    def changes_of(self, dependency: Output) -> Mapping[str, str]:
        """What `dependency.status()` says, flat: path, or `file:key` of a parameter, -> what happened to it."""
        if isinstance(dependency, ParamsDependency):
            return self._parameter_changes(dependency)
        path = dependency.def_path
        if path not in self._hashes and not dependency.exists:
            outputs = self.outputs_in(dependency)
            if not (self._missing_is_remote and outputs and dependency.hash_info):
                return {path: "deleted"}
            self._hashes[path] = self._recorded_hash(dependency, outputs) or dependency.hash_info
        if dependency.hash_info != self._hash_here(dependency):
            return {path: "modified" if dependency.hash_info else "new"}
        return {}

    def hash_of(self, dependency: Output) -> HashInfo | None:
        """Of a file or folder as it is here, or in the remote; None where it is missing."""
        if self.changes_of(dependency).get(dependency.def_path) == "deleted":
            return None
        return self._hashes[dependency.def_path]

    def hash_with(self, dependency: Output, parts: Mapping[str, HashInfo | None]) -> HashInfo | None:
        """Hash that a folder above partitions will have with these outputs (path -> hash, None: none) put into it.

        The recorded hash where the cache does not tell what an output consists of.
        """
        tree = Tree()
        if dependency.exists:
            arguments = (dependency.cache, dependency.fs_path, dependency.fs, dependency.hash_name)
            _, _, here = build(*arguments, ignore=dependency.dvcignore, dry_run=True)
            assert isinstance(here, Tree)
            for key, meta, hash_info in here:
                if f"{dependency.def_path}/{key[0]}" not in parts:
                    tree.add(key, meta, hash_info)
        for path, part in parts.items():
            if part is None:
                continue
            try:
                content = Tree.load(self.repo.cache.local, part)
            except (FileNotFoundError, ObjectFormatError):
                return dependency.hash_info or None
            for key, meta, hash_info in content:
                tree.add((path.removeprefix(f"{dependency.def_path}/"), *key), meta, hash_info)
        tree.digest()
        return tree.hash_info if len(tree) else None

    def cached_output(
        self, stage: PipelineStage, inputs: Mapping[str, HashInfo | None] | None
    ) -> HashInfo | None:
        """Hash of what DVC's cache holds of the stage's output for these inputs; None where the job is to run.

        inputs: by path; None for those recorded. The stage is left with these inputs and the parameters of now.
        """
        if inputs is None:
            return stage.outs[0].hash_info if stage.outs_cached() else None
        for dependency in stage.deps:
            if isinstance(dependency, ParamsDependency):
                values = self.parameters_of(dependency)
                dependency.hash_info = HashInfo(dependency.PARAM_PARAMS, values)  # type: ignore[arg-type]
            elif (known := inputs[dependency.def_path]) is None:
                return None
            else:
                dependency.hash_info, dependency.meta = (
                    known,
                    Meta(),
                )  # what is recorded there has a hash, too
        run_cache = self.repo.stage_cache
        key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
        entries = sorted(Path(run_cache._get_cache_dir(key)).glob("*"), key=lambda file: file.stat().st_mtime)
        entry = run_cache._load_cache(key, entries[-1].name) if entries else None
        if entry is None:
            return None
        cached = run_cache._create_stage(entry, wdir=stage.wdir)
        return cached.outs[0].hash_info if cached.outs_cached() else None

    def recorded_profile(self, address: StageAddress) -> str | None:
        """The profile that the address was last recorded under; None where it never was."""
        entry = self._file.lockfile_contents.get("stages", {}).get(str(address))
        return Path(entry["outs"][0]["path"]).parts[1] if entry else None

    def parameters_of(self, dependency: ParamsDependency) -> dict[str, Any]:
        """Tracked key -> value now, of those that are there."""
        found = {key: self._parameter(dependency, key) for key in dependency.params}
        return {key: value for key, (value, known) in found.items() if known}

    def _recorded_hash(self, dependency: Output, outputs: Mapping[str, Output]) -> HashInfo | None:
        """Of what is not here; None where nobody knows without asking the remote, which DVC takes for unchanged."""
        if not all(output.hash_info for output in outputs.values()):
            return None
        try:
            return recorded_hash(dependency.def_path, list(outputs.values()), self.cached_listing)[0]
        except (FileNotFoundError, ObjectFormatError):
            return None

    def cached_listing(self, hash_info: HashInfo) -> Tree:
        """What files a recorded folder has. Raises FileNotFoundError where only the remote knows."""
        return Tree.load(self.repo.cache.local, hash_info)

    def _parameter_changes(self, dependency: ParamsDependency) -> Mapping[str, str]:
        file = str(dependency)
        if not dependency.exists:
            return {file: "deleted"}
        recorded = dependency.hash_info.value
        if recorded is None:
            return {file: "new"}
        changes = {}
        for key in dependency.params:
            now, known = self._parameter(dependency, key)
            if not known:
                changes[f"{file}:{key}"] = "deleted"
            elif key not in recorded:
                changes[f"{file}:{key}"] = "new"
            elif now != recorded[key]:
                changes[f"{file}:{key}"] = "modified"
        return changes

    def _parameter(self, dependency: ParamsDependency, key: str) -> tuple[Any, bool]:
        """Value at a dotted key, and whether it is there."""
        path = dependency.fs_path
        if path not in self._parameter_files:
            self._parameter_files[path] = load_path(path, self.repo.fs)
        value = self._parameter_files[path]
        for name in key.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return None, False
            value = value[name]
        return value, True

    def write_entry(self, stage: PipelineStage) -> None:
        """Write the stage's entry into `dvc.lock`, at once or not at all; the other entries keep their bytes."""
        path = Path(self._lock.path)
        entry = to_single_stage_lockfile(stage)
        before = self._file.lockfile_contents
        expected = {"schema": "2.0", **before, "stages": {**before.get("stages", {}), stage.name: entry}}
        text = with_entry(path.read_text(encoding="utf-8") if path.exists() else "", stage.name, entry)
        if parse_yaml(text, str(path)) == expected:
            write_whole(path, text)
            self._parsed_lock.keep(text, expected)
        else:  # laid out by hand
            self._lock.dump_stages([stage])


def recorded_hash(
    path: str, outputs: Sequence[Output], listing: Callable[[HashInfo], Tree]
) -> tuple[HashInfo, Meta]:
    """What DVC makes of the folder at `path` that holds these recorded outputs: one at it, or partitions below it."""
    if [output.def_path for output in outputs] == [path]:
        return outputs[0].hash_info, outputs[0].meta
    merged = Tree()
    for output in outputs:
        below = PurePosixPath(output.def_path).relative_to(path).parts
        for key, meta, hash_info in listing(output.hash_info):
            merged.add((*below, *key), meta, hash_info)
    merged.digest()
    size = sum(output.meta.size or 0 for output in outputs)
    return HashInfo(outputs[0].hash_name, merged.oid), Meta(isdir=True, size=size, nfiles=len(merged))
