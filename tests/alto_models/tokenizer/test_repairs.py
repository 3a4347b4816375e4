"""For each fault of the released tokenizer code that no other test would have caught: a test that would.

Numbers are those of docs/repairs.md, which names the tests of the other faults.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from alto_models.data.crops import CropReader, CropSettings, croppable_rows
from alto_models.tokenizer.encoder import EncodedMask
from alto_models.tokenizer.length_predictor import LengthPredictor, expected_length
from alto_models.tokenizer.model import MaskTokenizer
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.tokenizer_example import write_prepared_masks


@pytest.mark.parametrize("width", [12, 96, 768])
def test_length_logits_are_of_order_one_at_every_width(width: int) -> None:
    """Fault 2: logits divided by the root of the width's inverse put all probability on one length from the start."""
    torch.manual_seed(0)
    config = TINY.model_copy(update={"width": width, "heads": 3})
    predictor = LengthPredictor(config)
    features = torch.randn(64, 1 + config.max_length, width)
    with torch.no_grad():
        logits = predictor(EncodedMask(summary=features[:, 0], latents=features[:, 1:]))
    assert 0.05 < logits.std() < 3
    lengths = expected_length(logits.softmax(-1))
    assert 1.5 < lengths.mean() < config.max_length - 0.5


def test_decoding_costs_less_the_fewer_codes_are_kept() -> None:
    """Fault 5: dropped codes that are zeroed are still attended to, and cost as much as kept ones."""
    model = MaskTokenizer(TINY).eval()
    codes = torch.zeros(4, TINY.max_length, dtype=torch.long)
    embedding = model.embedding_without_image(1)

    def flops(length: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.decode(codes, torch.full((4,), length), embedding)
        return counter.get_total_flops()

    costs = [flops(length) for length in range(1, TINY.max_length + 1)]
    assert costs == sorted(set(costs))


def test_processes_draw_different_crops_and_together_each_once(tmp_path: Path) -> None:
    """Fault 7: unseeded shuffles in each process let them train on the same samples."""
    folder = write_prepared_masks(tmp_path / "prepared", train=12)
    settings = CropSettings(image_size=64, mask_size=32, min_area_share=0.004)

    def reader() -> CropReader:  # each process makes its own
        return CropReader(croppable_rows(folder, "train", settings), settings, 3, crops)

    step, crops, processes = 2, 4, 2
    share = crops // processes
    first = step * crops
    drawn = [
        reader().batch(range(first + rank * share, first + (rank + 1) * share)) for rank in range(processes)
    ]
    together = reader().batch(range(first, first + crops))
    ids = [image_id for batch in drawn for image_id in batch.image_ids]
    assert tuple(ids) == together.image_ids
    assert len(set(ids)) == crops
    np.testing.assert_array_equal(np.concatenate([batch.masks for batch in drawn]), together.masks)
