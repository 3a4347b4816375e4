"""ALToLLM checkpoint folders: what `transformers` writes for model and tokenizer, and nothing else.

`config.json` + `model.safetensors`, or shards with an index, + the tokenizer's files: transformers alone can load them.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from alto_models.checkpoint import CONFIG_FILE
from data_contracts.errors import InputError

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration

LARGEST_SHARD = "5GB"


def save_llm(
    folder: Path,
    model: "InternVLForConditionalGeneration",
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Write the model, in the precision it is in, and its tokenizer into `folder`, made if need be.

    Weights of more than `LARGEST_SHARD` become several files.
    """
    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size=LARGEST_SHARD)


def load_llm(folder: Path) -> tuple["InternVLForConditionalGeneration", PreTrainedTokenizerBase]:
    """Model in float32 and evaluation mode, and tokenizer.

    Raises InputError where the folder holds no such checkpoint, or tensors are missing, left over or of
    another shape.
    """
    from transformers import AutoTokenizer, InternVLForConditionalGeneration

    logging.disable_progress_bar()
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{folder}: no checkpoint here ({CONFIG_FILE} is missing)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, notes = InternVLForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, StrictDataclassError) as error:
        raise InputError(f"{folder}: not an InternVL checkpoint ({str(error).splitlines()[0]})") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if notes[problem]:
            raise InputError(
                f"{folder}: {problem.replace('_', ' ')} in the weights: {sorted(notes[problem])[:3]}"
            )
    for name in ("is_local", "local_files_only"):  # how it was loaded is no part of a tokenizer
        tokenizer.init_kwargs.pop(name, None)
    return model.eval(), tokenizer
