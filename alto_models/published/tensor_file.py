"""Weight files from outside: read as tensors only, and held against what a network needs."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 (what torch raises when it refuses to unpickle)
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data_contracts.errors import InputError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a `.pth` or `.bin` file that holds a state dict, on the CPU.

    Objects other than tensors and plain containers are refused, not unpickled.
    Raises InputError when the file is absent, broken, or something else than a state dict.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of the downloaded weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        # Mapped where the format allows: only the copy that is written takes memory.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except UnpicklingError as error:
        raise InputError(
            f"{path}: holds something else than tensors; give a file of plain weights"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable weight file; download it again") from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise InputError(f"{path}: not a state dict (tensors by name)")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{path}: entry {name!r} is not a named tensor; give the state dict itself")
    return dict(loaded)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); download it again") from error


def renamed(name: str, patterns: Sequence[tuple[str, str]]) -> str:
    """What the first pattern that fits the whole `name` makes of it. Raises ValueError where none does."""
    for pattern, replacement in patterns:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    raise ValueError(f"no published tensor corresponds to {name}")


def layer_count(names: Iterable[str], prefix: str) -> int:
    """How many different numbers follow the pattern `prefix` and a dot."""
    matches = (re.match(rf"{prefix}\.(\d+)\.", name) for name in names)
    return len({match[1] for match in matches if match})


@contextmanager
def reading_sizes(source: str, what: str) -> Iterator[None]:
    """Say of `source` that it is not `what`, where reading sizes off its tensors fails."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{source}: missing tensor {error.args[0]}; this is not {what}") from error
    except (IndexError, ValueError) as error:
        raise InputError(f"{source}: tensors of unknown shapes; this is not {what}") from error


def check_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], source: str) -> None:
    """Every tensor must be wanted, present, floating point and of the right shape.

    tensors, shapes: what the file has and what the network needs, both by published name.
    Raises InputError naming the first tensor that does not fit, and how many more there are.
    """
    _refuse("missing tensor", sorted(shapes.keys() - tensors.keys()), source)
    _refuse("unexpected tensor", sorted(tensors.keys() - shapes.keys()), source)
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise InputError(
                f"{source}: tensor {name} has shape {tuple(tensor.shape)}, needed is {tuple(shape)}"
            )
        if not tensor.is_floating_point():
            raise InputError(
                f"{source}: tensor {name} holds {tensor.dtype}, needed are floating-point numbers"
            )


def _refuse(problem: str, names: list[str], source: str) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(f"{source}: {problem} {names[0]}{more}; these are not the weights asked for")
