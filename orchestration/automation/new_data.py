"""New shards and new versions of referring data sets, found in the folders that data is acquired from."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.runner.ledger import value_hash
from jobs.runner.lineage import look_up, read_yaml
from jobs.runner.staleness import StageState
from orchestration.parameter_file import change_parameters


def find_new_shards(root: Path, settled_before: float) -> list[str]:
    """Shard files in the configured folder that no batch holds yet, last changed before that time."""
    settings = look_up(read_yaml(root / "params.yaml"), "acquire_sa1b")
    listed = {
        shard
        for shards in look_up(read_yaml(root / "partitions.yaml"), "sa1b.shards").values()
        for shard in shards
    }
    return sorted(
        path.name
        for path in (root / settings["folder"]).glob("*.tar")
        if path.name not in listed and path.stat().st_mtime <= settled_before
    )


def new_versions(root: Path, settled_before: float) -> dict[str, str]:
    """Referring data set -> version of its folder, of those that differ from the one in `params.yaml`."""
    datasets = look_up(read_yaml(root / "params.yaml"), "acquire_referring.datasets")
    found = {}
    for name in look_up(read_yaml(root / "partitions.yaml"), "referring.datasets"):
        settings = datasets.get(name, {})
        if settings.get("source") == "folder":
            folders = filter(None, [settings["folder"], settings.get("image_folder")])
            version = folder_version([root / folder for folder in folders], settled_before)
            if version is not None and version != settings.get("version"):
                found[name] = version
    return found


def folder_version(folders: Iterable[Path], settled_before: float) -> str | None:
    """Of names, sizes and times of the files in them; None where one was changed since, or there is none."""
    digest = hashlib.md5()
    files = list(_files(folders))
    for name, size, changed in files:
        if changed > settled_before:
            return None
        digest.update(f"{name}\0{size}\0{changed}\n".encode())
    return digest.hexdigest()[:12] if files else None


def _files(folders: Iterable[Path]) -> Iterator[tuple[str, int, float]]:
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            status = path.stat()
            yield path.relative_to(folder).as_posix(), status.st_size, status.st_mtime


def set_versions(root: Path, versions: Mapping[str, str]) -> None:
    """Write the versions of data sets into `params.yaml`, by which both doors see that they are to be acquired anew."""
    if not versions:
        return

    def change(parameters: dict[str, Any]) -> None:
        for name, version in versions.items():
            parameters["acquire_referring"]["datasets"][name]["version"] = version

    change_parameters(root, change)


def state_of_referring(root: Path) -> str:
    """Changes with the parameters of the referring data sets and with the list of them."""
    parameters, partitions = read_yaml(root / "params.yaml"), read_yaml(root / "partitions.yaml")
    return value_hash([parameters["profile"], parameters["acquire_referring"], partitions["referring"]])


def stale_datasets(states: Sequence[StageState]) -> dict[str, str]:
    """Data set that is new, or whose parameters changed -> key of just this change.

    Not those whose code changed: that alone is no reason to fetch a data set again without being asked.
    """
    return {
        state.address.partition: f"{state.address}:{value_hash(state.why)}"
        for state in states
        if state.address.stage == "acquire_referring"
        and state.address.partition
        and any(change.kind in ("parameter", "never_run") for change in state.changes)
    }
