"""Checkpoint folders: `config.json` + `model.safetensors`, written atomically and read strictly.

Nothing is unpickled. `config.json` is written last: a folder that has one holds a complete checkpoint.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alto_models.weight_files import TENSORS_FILE
from data_contracts.errors import InputError

CONFIG_FILE = "config.json"

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary sibling of `path`, flush it to disk and rename it into place."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def save_checkpoint(folder: Path, config: BaseModel, tensors: Mapping[str, Tensor]) -> None:
    """Write `config` and `tensors` (a state dict, moved to CPU) into `folder`, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    on_cpu = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    replace_atomically(folder / TENSORS_FILE, lambda path: save_file(on_cpu, path))
    text = json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    replace_atomically(folder / CONFIG_FILE, lambda path: path.write_text(text))


def load_config(folder: Path, config_type: type[ConfigT]) -> ConfigT:
    """Read `folder/config.json` as `config_type`.

    Raises InputError when the file is absent or does not fit the type.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{folder}: no checkpoint here ({CONFIG_FILE} is missing)")
    try:
        return config_type.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"{path}: {field}: {first['msg']}") from error


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Read `folder/model.safetensors`. Raises InputError when it is absent or broken."""
    path = folder / TENSORS_FILE
    if not path.is_file():
        raise InputError(f"{folder}: no checkpoint here ({TENSORS_FILE} is missing)")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); copy it again") from error


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill `module` with `tensors`; every tensor must be wanted, present, and of the right shape.

    source: what error messages call the origin of the tensors, such as the checkpoint folder.
    Raises InputError naming the first tensors that are missing, left over or of another shape.
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    extra = sorted(tensors.keys() - expected.keys())
    if missing or extra:
        raise InputError(
            f"{source}: {_some('missing tensor', missing)}{_some('unexpected tensor', extra)}"
            f"the weights do not belong to the model in {CONFIG_FILE}"
        )
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise InputError(
                f"{source}: tensor {name} has shape {tuple(tensors[name].shape)}, "
                f"the model in {CONFIG_FILE} needs {tuple(tensor.shape)}"
            )
    with torch.no_grad():
        module.load_state_dict(dict(tensors), strict=True)


def _some(kind: str, names: list[str]) -> str:
    """`"2 missing tensors (a, b); "`, naming at most three; empty for no names."""
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {kind}{'s' if len(names) > 1 else ''} ({shown}); "
