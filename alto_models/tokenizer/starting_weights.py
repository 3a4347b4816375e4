"""Weights that training starts from: those of a whole mask tokenizer, or of some of its modules.

A folder of starting weights has a checkpoint's files. Its `config.json` states all sizes of the tokenizer, or
those that the modules in it depend on; its tensors are the whole tokenizer's, or those of whole `MODULES`.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from alto_models.checkpoint import CONFIG_FILE, load_config, load_strictly, load_tensors
from alto_models.tokenizer.config import SamPixelEncoderConfig, SizeConfig
from alto_models.tokenizer.model import MaskTokenizer
from data_contracts.errors import InputError

# What may be given without the rest, which then stays as it is initialised.
MODULES = ("pixel_encoder", "encoder.transformer", "detokenizer.transformer")


class StartingSizes(SizeConfig):
    """Those sizes of `TokenizerConfig` that starting weights were made for; null leaves the choice open."""

    pixel_encoder: SamPixelEncoderConfig | None = None
    width: int | None = None
    heads: int | None = None
    encoder_layers: int | None = None
    decoder_layers: int | None = None


class _StatedSizes(BaseModel):
    """Whatever `config.json` states."""

    model_config = ConfigDict(extra="allow")


def load_starting_weights(model: MaskTokenizer, folder: Path) -> None:
    """Fill `model`, or the modules that `folder` holds, with its tensors.

    Raises InputError for sizes other than the model's, an unknown tensor, a module given in part, and where
    there is no readable folder.
    """
    _check_sizes(load_config(folder, _StatedSizes).model_dump(exclude_none=True), model, folder)
    tensors = load_tensors(folder)
    given = {
        module: {
            name.removeprefix(f"{module}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{module}.")
        }
        for module in MODULES
    }
    if tensors and sum(map(len, given.values())) == len(tensors):
        for module, part in given.items():
            if part:
                load_strictly(model.get_submodule(module), part, f"{folder}: {module}")
    else:
        load_strictly(model, tensors, str(folder))


def _check_sizes(stated: dict[str, Any], model: MaskTokenizer, folder: Path) -> None:
    """Some sizes, such as the number of heads, show in no tensor."""
    needed = model.config.model_dump(mode="json")
    for name, value in stated.items():
        if name not in needed:
            raise InputError(f"{folder / CONFIG_FILE}: {name} is no size of a mask tokenizer to start from")
        if value != needed[name]:
            raise InputError(
                f"{folder}: these weights were made for {name} {value}, the parameters say {needed[name]}"
            )
