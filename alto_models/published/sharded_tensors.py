"""Sharded safetensors folders, read and written one tensor at a time.

Format: 8 bytes little-endian length of the header, the header (JSON: name -> dtype, shape, data_offsets),
the tensors' bytes. Source: github.com/huggingface/safetensors, section "Format".
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alto_models.weight_files import INDEX_FILE, TENSORS_FILE, read_index
from data_contracts.errors import InputError

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ALIGNMENT = 8  # bytes


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor in a file, known by its header alone until it is read."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self) -> Tensor:
        """The tensor, mapped from the file: its memory is free again when the tensor is."""
        with safe_open(self.file, framework="pt") as shard:
            return shard.get_tensor(self.name)

    def on_meta(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """All tensors of the checkpoint `folder`, by shard, then by name.

    Raises InputError where there is no safetensors checkpoint (pickled weights are refused), a shard is
    missing or broken, index and shards disagree, or a tensor is not in floating point of 16 or 32 bits.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        if not (folder / TENSORS_FILE).is_file():
            raise InputError(_nothing_to_read(folder))
        return _stored_in(folder / TENSORS_FILE)
    indexed = read_index(index)
    tensors = [tensor for name in sorted(set(indexed.values())) for tensor in _stored_in(folder / name)]
    if duplicate := len(tensors) - len({tensor.name for tensor in tensors}):
        raise InputError(f"{index}: {duplicate} tensors are in more than one shard; copy the folder again")
    for name in sorted(indexed.keys() ^ {tensor.name for tensor in tensors}):
        place = "its shard" if name in indexed else "the index"
        raise InputError(f"{index}: tensor {name} is missing in {place}; copy the folder again")
    return tensors


def write_tensors(path: Path, described: Sequence[tuple[str, Tensor]], tensors: Iterable[Tensor]) -> None:
    """Write a safetensors file, holding one tensor at a time.

    described: name and a (meta) tensor of the shape and dtype of each; tensors: the same, with values.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, like in described:
        begin, end = end, end + like.nbytes
        dtype, shape = _DTYPE_NAMES[like.dtype], list(like.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, like), tensor in zip(described, tensors, strict=True):
            if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
                raise ValueError(
                    f"{name}: announced as {like.shape} {like.dtype}, got {tensor.shape} {tensor.dtype}"
                )
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())


def _nothing_to_read(folder: Path) -> str:
    pickled = sorted(path.name for path in folder.glob("*") if path.suffix in _PICKLED)
    if pickled:
        return (
            f"{folder}: the weights are pickled ({pickled[0]}), and unpickling can run code; "
            "get the checkpoint as safetensors"
        )
    return f"{folder}: no weights here ({TENSORS_FILE} or {INDEX_FILE} is missing)"


def _stored_in(path: Path) -> list[StoredTensor]:
    if not path.is_file():
        raise InputError(f"{path}: this shard is missing; copy it into the folder")
    try:
        with safe_open(path, framework="pt") as shard:
            slices = [(name, shard.get_slice(name)) for name in sorted(shard.keys())]
            found = [(name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    for name, _, dtype in found:
        if dtype not in _DTYPES:
            raise InputError(
                f"{path}: tensor {name} is stored as {dtype}; only {', '.join(_DTYPES)} are converted"
            )
    return [
        StoredTensor(file=path, name=name, shape=shape, dtype=_DTYPES[dtype]) for name, shape, dtype in found
    ]
