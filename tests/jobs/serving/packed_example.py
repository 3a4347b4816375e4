"""An untrained ALToLLM with its mask tokenizer, packed as a registered version is."""

from dataclasses import dataclass
from pathlib import Path

import torch

from alto_models.checkpoint import save_checkpoint
from alto_models.tokenizer.model import MaskTokenizer
from jobs.serving.package import package_segmenter
from tests.alto_models.altollm.tiny import CODES, untrained
from tests.alto_models.tokenizer.tiny import TINY


@dataclass(frozen=True)
class PackedExample:
    altollm: Path
    tokenizer: Path
    packed: Path


def packed_example(folder: Path) -> PackedExample:
    example = PackedExample(*(folder / name for name in ("altollm", "tokenizer", "packed")))
    torch.manual_seed(0)
    untrained().save(example.altollm)
    config = TINY.model_copy(update={"codebook_size": CODES})
    save_checkpoint(example.tokenizer, config, MaskTokenizer(config).state_dict())
    package_segmenter(example.altollm, example.tokenizer, example.packed)
    return example
