"""Published InternVL-Chat / ALToLLM checkpoint -> folder that transformers alone can load.

Everything is planned and checked on headers and the meta device before the first byte of a weight is read;
then tensors are copied one by one, so that memory holds one tensor, not a model. Nothing of the source is
executed: its code is not imported, pickled weights are refused.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Never

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from tqdm import tqdm

from alto_models.altollm.vocabulary import IMAGE_CONTEXT, TURN_END, token_id
from alto_models.checkpoint import CONFIG_FILE, load_config
from alto_models.published.chat_tokenizer import load_chat_tokenizer
from alto_models.published.internvl_chat import InternVLChat
from alto_models.published.sharded_tensors import StoredTensor, stored_tensors, write_tensors
from alto_models.published.tensor_names import Selection, destinations, is_ignored
from alto_models.weight_files import INDEX_FILE, TENSORS_FILE
from data_contracts.errors import InputError, first_line

if TYPE_CHECKING:
    from transformers import InternVLConfig, PreTrainedTokenizerBase

_LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written: numbers of tensors and files, and of source tensors left out on purpose."""

    tensors: int
    files: int
    ignored: int


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """One tensor to write: where it comes from, and how it is cut out of it."""

    name: str
    source: StoredTensor
    select: Selection

    def read(self) -> Tensor:
        return self.select(self.source.read())

    def on_meta(self) -> Tensor:
        return self.select(self.source.on_meta())


def convert_altollm(source: Path, target: Path) -> Conversion:
    """Write the checkpoint in the folder `source` to the new folder `target`, tokenizer included.

    `target` appears complete or not at all. Weights keep their precision, tokens their ids.
    Raises InputError, naming file and tensor, where `source` is not such a checkpoint, a tensor is missing,
    unknown or of another shape, or `target` is there already.
    """
    if target.exists():
        raise InputError(f"{target}: exists already; name a new folder, or remove it first")
    published = load_config(source, InternVLChat)
    tokenizer = load_chat_tokenizer(source, published.llm_config.vocab_size)
    stored = stored_tensors(source)
    wanted = [tensor for tensor in stored if not is_ignored(tensor.name)]
    copies = _plan(wanted, published)
    config = _transformers_config(source, published, tokenizer)
    _check(copies, config, source)
    config.dtype = next(copy.source.dtype for copy in copies if copy.name.endswith("embed_tokens.weight"))

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        files = _write_weights(partial, copies)
        _write_rest(partial, source, config, tokenizer)
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Conversion(tensors=len(copies), files=files, ignored=len(stored) - len(wanted))


def _plan(stored: list[StoredTensor], published: InternVLChat) -> list[_Copy]:
    language_model = published.llm_config
    copies = []
    for tensor in stored:
        parts = destinations(tensor.name, language_model.model_type, language_model.heads)
        if not parts:
            raise InputError(
                f"{tensor.file}: tensor {tensor.name} is not known in a checkpoint with a {language_model.model_type} "
                "language model; merge adapters (LoRA) before converting"
            )
        copies += [_Copy(name=part.name, source=tensor, select=part.select) for part in parts]
    return copies


def _transformers_config(
    source: Path, published: InternVLChat, tokenizer: "PreTrainedTokenizerBase"
) -> "InternVLConfig":
    try:
        return published.to_transformers(tokenizer, token_id(tokenizer, IMAGE_CONTEXT))
    except (ValueError, StrictDataclassError) as error:
        raise InputError(f"{source / CONFIG_FILE}: {first_line(error)}") from error


def _check(copies: list[_Copy], config: "InternVLConfig", source: Path) -> None:
    """Every tensor of the network is written once, in its shape."""
    needed = needed_shapes(config)
    for copy in copies:
        shape = needed.pop(copy.name, None)
        if shape is None:
            raise InputError(
                f"{copy.source.file}: tensor {copy.source.name} has no place in the network of {CONFIG_FILE}"
            )
        try:
            found = copy.on_meta().shape
        except (RuntimeError, IndexError):
            found = None
        if found != shape:
            raise InputError(
                f"{copy.source.file}: tensor {copy.source.name} has shape {copy.source.shape}, "
                f"which does not give {copy.name} its {tuple(shape)}; {CONFIG_FILE} and weights disagree"
            )
    if needed:
        more = f" and {len(needed) - 1} more" if len(needed) > 1 else ""
        raise InputError(f"{source}: no tensor gives {min(needed)}{more}; a shard or part of it is missing")


def needed_shapes(config: "InternVLConfig") -> dict[str, torch.Size]:
    """Shape of every tensor of the network, by the name it has in a file of transformers."""
    from transformers import InternVLForConditionalGeneration
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    shapes = {
        name: tensor.shape for name, tensor in revert_weight_conversion(model, model.state_dict()).items()
    }
    if config.tie_word_embeddings:
        del shapes["language_model.lm_head.weight"]
    return shapes


def _write_weights(folder: Path, copies: list[_Copy]) -> int:
    """One file for each source file that gives any tensor; returns how many."""
    shards: dict[Path, list[_Copy]] = {}
    for copy in copies:
        shards.setdefault(copy.source.file, []).append(copy)
    weight_map: dict[str, str] = {}
    total_bytes = sum(copy.on_meta().nbytes for copy in copies)
    with tqdm(total=total_bytes, desc="Converting", unit="B", unit_scale=True, disable=None) as bar:
        for number, shard in enumerate(shards.values(), start=1):
            name = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else TENSORS_FILE
            write_tensors(folder / name, [(copy.name, copy.on_meta()) for copy in shard], _values(shard, bar))
            weight_map |= {copy.name: name for copy in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")
    return len(shards)


def _values(shard: list[_Copy], bar: "tqdm[Never]") -> Iterator[Tensor]:
    for copy in shard:
        tensor = copy.read()
        bar.update(tensor.nbytes)
        yield tensor


def _write_rest(
    folder: Path, source: Path, config: "InternVLConfig", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    from transformers import GenerationConfig

    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    ends = [tokenizer.eos_token_id, tokenizer.get_vocab().get(TURN_END)]
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted({end for end in ends if end is not None}),
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)
    for pattern in _LICENCE_FILES:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
