"""The benchmark on real masks counts the right masks, and runs."""

from pathlib import Path

import numpy as np
import pytest

from alto_models.data.masks import MaskImages
from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.evaluation import Scores
from alto_models.tokenizer.model import MaskTokenizer
from jobs.sample_scenes.scene import SceneConfig
from tests.benchmarks import real_masks
from tests.benchmarks.real_masks import HeldOut, by_length, by_size, stage_section
from tests.benchmarks.scenes import draw_scenes

SIDE = 10


def scores(areas: list[int], ious: list[float]) -> Scores:
    """Whole-image objects and a last mask on a crop, decoded at lengths 1 and 4; IoU a tenth lower at 1."""
    count = len(areas)
    column = np.array(ious, np.float32)
    return Scores(
        image_ids=["7"] * count,
        kinds=["whole"] * (count - 1) + ["crop"],
        lengths=np.array([1, 4]),
        codes=np.zeros((count, 4), np.int64),
        predicted=np.full(count, 2),
        iou=np.stack([column - np.float32(0.1), column], axis=1),
        boundary_iou=np.stack([column, column], axis=1),
        predicted_iou=column,
        predicted_boundary_iou=column,
        area=np.array(areas),
        boundary_length=np.ones(count, np.int64),
    )


def test_masks_are_classed_by_their_share_of_the_square() -> None:
    named = {"ours": scores([1, 1, 5, 100], [0.2, 0.4, 0.5, 0.9])}
    rows = by_size(named, SIDE).splitlines()[2:]
    assert rows == [
        "| 1% and more | 2 | 0.300 |",
        "| 5% and more | 1 | 0.500 |",
        "| 15% and more | 1 | 0.900 |",
    ]


def test_both_views_have_a_row_and_all_masks_one() -> None:
    rows = by_length({"ours": scores([1, 1, 5, 100], [0.3, 0.4, 0.5, 0.8])}).splitlines()[2:]
    assert rows == [
        "| ours | whole | 0.300 | 0.400 | 0.400 (2.0) |",
        "| ours | crop | 0.700 | 0.800 | 0.800 (2.0) |",
        "| ours | both | 0.400 | 0.500 | 0.500 (2.0) |",
    ]


def test_a_perfect_small_mask_bounds_what_is_reached(tmp_path: Path) -> None:
    prepared = draw_scenes(tmp_path, 12, SceneConfig(), held_out_share=0.5).prepared
    held_out = HeldOut(tmp_path, prepared, stage_section("small", "tokenizer_stage1", {}))
    reached, best = held_out.original_ious(MaskTokenizer(TokenizerConfig()).eval())
    assert len(reached) == len(best) > len(MaskImages(prepared, "held_out"))
    assert reached.mean() < 0.3 < 0.8 < best.mean() < 1


@pytest.mark.slow
@pytest.mark.skipif(not real_masks.DATA.is_dir(), reason="real sample data (../shared/data) is not here")
def test_the_benchmark_runs() -> None:
    text = real_masks.compare(real_masks.DATA, "smoke", scenes=24, steps=(4, 4), scenes_only=None)
    assert "masks of 22 held-out photos" in text
    assert "| photos and scenes, no photo | both |" in text
