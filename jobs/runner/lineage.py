"""The graph in `dvc.yaml`, read for those who show it: stages, what they read, and their partitions."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from data_contracts.errors import InputError
from jobs.runner.layout import StageAddress, checked_profile, stage_of_path


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One entry of `dvc.yaml`.

    partition_set: dotted key of the list in `partitions.yaml` that the stage is partitioned by, or None.
    partitions: the keys in it; empty for an unpartitioned stage.
    upstream_same_partition: those of `upstream` of which only the equal partition is read.
    code: declared code files and folders, relative to the root.
    parameters: keys of params.yaml as written (with `${item.…}` where they depend on the partition).
    """

    name: str
    command: str
    upstream: tuple[str, ...]
    upstream_same_partition: tuple[str, ...]
    partition_set: str | None
    partitions: tuple[str, ...]
    code: tuple[str, ...]
    parameters: tuple[str, ...]

    def reads(self, upstream: StageAddress, partition: str | None) -> bool:
        """Whether this stage (at `partition`) reads the output of the given address."""
        if upstream.stage in self.upstream_same_partition:
            return upstream.partition == partition
        return upstream.stage in self.upstream

    @property
    def addresses(self) -> tuple[StageAddress, ...]:
        if self.partition_set is None:
            return (StageAddress(self.name),)
        return tuple(StageAddress(self.name, key) for key in self.partitions)


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """All stages, upstream first."""

    root: Path
    profile: str
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def addresses(self) -> tuple[StageAddress, ...]:
        return tuple(address for stage in self.stages for address in stage.addresses)

    def all_upstream(self, name: str) -> set[str]:
        """Every stage that this one reads, directly or not."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            new = set(self.stage(waiting.pop()).upstream) - found
            found |= new
            waiting += new
        return found


def read_lineage(root: Path) -> Lineage:
    """Raises InputError where a file is missing or is not YAML, or holds a name that is none."""
    entries = read_yaml(root / "dvc.yaml")["stages"]
    partitions = read_yaml(root / "partitions.yaml")
    stages = {name: _stage(name, entry, partitions) for name, entry in entries.items()}
    order = TopologicalSorter({name: stage.upstream for name, stage in stages.items()}).static_order()
    return Lineage(
        root=root,
        profile=checked_profile(read_yaml(root / "params.yaml")["profile"]),
        stages=tuple(stages[name] for name in order),
    )


def _stage(name: str, entry: Mapping[str, Any], partitions: Mapping[str, Any]) -> Stage:
    dependencies = entry.get("deps", [])
    upstream = {stage for path in dependencies if (stage := stage_of_path(path))}
    partition_set = None
    if "matrix" in entry:
        (reference,) = entry["matrix"].values()
        partition_set = reference.removeprefix("${").removesuffix("}")
    partitions_of_it = tuple(look_up(partitions, partition_set)) if partition_set else ()
    for key in partitions_of_it:
        StageAddress(name, key)  # refuses what is no key, before it becomes part of a path
    return Stage(
        name=name,
        command=entry["cmd"],
        upstream=tuple(sorted(upstream)),
        upstream_same_partition=tuple(
            sorted(stage for path in dependencies if "${item." in path and (stage := stage_of_path(path)))
        ),
        partition_set=partition_set,
        partitions=partitions_of_it,
        code=tuple(path for path in dependencies if not stage_of_path(path)),
        parameters=tuple(key for key in entry.get("params", []) if isinstance(key, str)),
    )


def code_version(root: Path, stage: Stage, parameters: Mapping[str, Any] | None = None) -> str:
    """Hash of the stage's command, its parameters (of every partition) and its declared code.

    parameters: what params.yaml holds, where many stages are asked about: reading it takes longer than the rest.
    """
    if parameters is None:
        parameters = read_yaml(root / "params.yaml")
    values = parameters_of(stage, parameters)
    digest = hashlib.md5(json.dumps([stage.command, values], sort_keys=True).encode())
    for path in stage.code:
        for file in code_files(root / path):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def parameters_of(stage: Stage, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Section -> what it holds, of all sections that the stage (any of its partitions) is told."""
    sections = [re.sub(r"\.\$\{.*\}$", "", key) for key in stage.parameters]
    return {section: look_up(parameters, section) for section in sections}


def code_files(path: Path) -> list[Path]:
    """The file itself, or every source file below a folder, in a fixed order."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def look_up(values: Mapping[str, Any], dotted_key: str) -> Any:
    """Value at `a.b.c`. Raises InputError naming the missing key."""
    value: Any = values
    for key in dotted_key.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise InputError(
                f"{dotted_key} is missing: compare params.yaml and partitions.yaml with infra/profiles"
            )
        value = value[key]
    return value


def read_yaml(path: Path) -> Any:
    """Raises InputError where the file is missing or is not YAML."""
    try:
        return yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError as error:
        raise InputError(f"{path.name} is missing in {path.parent}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path.name} is not valid YAML: {str(error).splitlines()[0]}") from error
