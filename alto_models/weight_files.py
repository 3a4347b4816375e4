"""The files that hold the weights of a checkpoint folder, and their checksum. Nothing is loaded."""

import hashlib
import json
from pathlib import Path

from data_contracts.errors import InputError

TENSORS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """`model.safetensors`, or the shards that `model.safetensors.index.json` names, in the order of their names.

    Raises InputError where neither or both are there, a shard is missing, or the index cannot be trusted.
    """
    single, index = folder / TENSORS_FILE, folder / INDEX_FILE
    if single.is_file() and index.is_file():
        raise InputError(f"{folder}: holds {TENSORS_FILE} and {INDEX_FILE}; remove the one that is not meant")
    if single.is_file():
        return [single]
    if not index.is_file():
        raise InputError(f"{folder}: no weights here ({TENSORS_FILE} or {INDEX_FILE} is missing)")
    shards = [folder / name for name in sorted(set(read_index(index).values()))]
    for shard in shards:
        if not shard.is_file():
            raise InputError(f"{shard}: this shard is missing; copy it into the folder")
    return shards


def weights_sha256(folder: Path) -> str:
    """Checksum of the weights in `folder`, in hexadecimal digits.

    Of one file it is the file's own; of shards that of the list which `sha256sum` prints of them, in the order
    of their names. Raises InputError as `weight_files` does.
    """
    sums = {path.name: _sha256(path) for path in weight_files(folder)}
    if sums.keys() == {TENSORS_FILE}:
        return sums[TENSORS_FILE]
    return hashlib.sha256("".join(f"{found}  {name}\n" for name, found in sums.items()).encode()).hexdigest()


def read_index(path: Path) -> dict[str, str]:
    """name -> shard of every tensor. Shards are plain names of files beside the index."""
    try:
        indexed = json.loads(path.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an index of shards (no weight_map); copy it again") from error
    if not isinstance(indexed, dict) or not indexed:
        raise InputError(f"{path}: weight_map names no tensors; copy it again")
    for name, shard in indexed.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise InputError(
                f"{path}: tensor {name} is said to be in {shard!r}, not a .safetensors file of this folder"
            )
    return indexed


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
