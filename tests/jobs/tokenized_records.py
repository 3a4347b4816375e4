"""What fine-tuning reads beside its base: records, an untrained mask tokenizer, and the codes it gives."""

from pathlib import Path

import torch

from alto_models.checkpoint import save_checkpoint
from alto_models.tokenizer.model import MaskTokenizer
from jobs import mask_tokens
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.tokenizer_example import SIDE, context, parameters, write_prepared_records


def write_tokenized_records(folder: Path, width: int = SIDE) -> dict[str, Path]:
    """Stage name -> its output folder."""
    torch.manual_seed(3)
    save_checkpoint(folder / "tokenizer", TINY, MaskTokenizer(TINY).state_dict())
    found = {
        "prepare_referring": write_prepared_records(folder / "records", "discs", width=width),
        "tokenizer_stage1_5": folder / "tokenizer",
    }
    run = context(folder, "mask_tokens", **found)
    mask_tokens.run(mask_tokens.Config.model_validate(parameters("mask_tokens")), run)
    return found | {"mask_tokens": run.output}
