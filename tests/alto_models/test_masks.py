"""Run arithmetic against pycocotools, scipy and plain indexing, and refusal of what is no mask."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from scipy.ndimage import binary_erosion

from alto_models import masks
from alto_models.masks import MaskError, Rle

binary_masks = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 1)
)
quick = settings(max_examples=150, deadline=None)


def runs_of(mask: np.ndarray) -> masks.Runs:
    return masks.parse_counts(masks.encode(mask).counts)


@quick
@given(binary_masks)
def test_coding_agrees_with_pycocotools_and_comes_back(mask: np.ndarray) -> None:
    rle = masks.encode(mask)
    theirs = {"size": list(mask.shape), "counts": rle.counts.encode()}
    np.testing.assert_array_equal(coco.decode(theirs), mask)
    np.testing.assert_array_equal(masks.decode(rle), mask)
    assert masks.compress_runs(runs_of(mask), *mask.shape) == rle


@quick
@given(binary_masks)
def test_area_and_box_agree_with_pycocotools(mask: np.ndarray) -> None:
    rle, runs = masks.encode(mask), runs_of(mask)
    theirs = {"size": list(mask.shape), "counts": rle.counts.encode()}
    assert masks.area(runs) == coco.area(theirs)
    assert list(masks.box(runs, rle.height)) == coco.toBbox(theirs).tolist()


@quick
@given(binary_masks)
def test_boundary_is_what_erosion_takes_away(mask: np.ndarray) -> None:
    inner = binary_erosion(mask, border_value=0)
    assert masks.boundary_length(runs_of(mask), mask.shape[0]) == mask.sum() - inner.sum()


@quick
@given(binary_masks, st.integers(-5, 8), st.integers(-5, 8), st.integers(1, 20), st.integers(1, 12))
def test_sampling_runs_is_cropping_then_nearest_resize(
    mask: np.ndarray, left: int, top: int, side: int, size: int
) -> None:
    height, width = mask.shape
    sampled = masks.sample(
        runs_of(mask), height, width, masks.grid(top, side, size), masks.grid(left, side, size)
    )
    cropped = masks.crop_square(mask, left, top, side)
    np.testing.assert_array_equal(sampled, masks.resize_nearest(cropped, size, size))


@quick
@given(hnp.arrays(np.uint8, (3, 5, 7), elements=st.integers(0, 1)), st.integers(-4, 6), st.integers(1, 14))
def test_sampling_several_masks_is_sampling_their_union(stack: np.ndarray, corner: int, side: int) -> None:
    rows, columns = masks.grid(corner, side, 6), masks.grid(-corner, side, 9)
    together = masks.sample_union([runs_of(mask) for mask in stack], 5, 7, rows, columns)
    union = runs_of(np.logical_or.reduce(stack).astype(np.uint8))
    np.testing.assert_array_equal(together, masks.sample(union, 5, 7, rows, columns))


@quick
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(hnp.arrays(np.uint8, (7, n), elements=st.integers(0, 1)), min_size=1, max_size=4)
    )
)
def test_union_is_the_logical_or(stack: list[np.ndarray]) -> None:
    merged = masks.union([masks.encode(mask) for mask in stack])
    np.testing.assert_array_equal(masks.decode(merged), np.logical_or.reduce(stack))


@quick
@given(hnp.arrays(bool, (2, 5, 7)))
def test_difference_is_what_the_second_does_not_cover(pair: np.ndarray) -> None:
    first, second = pair
    left = masks.difference(masks.encode(first), masks.encode(second))
    assert left == masks.encode(first & ~second)


@quick
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_empty_runs_in_between_change_nothing(height: int, width: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, height * width), max_size=8)))
    runs = np.diff([0, *cuts, height * width])
    mask = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T.astype(np.uint8)
    assert masks.has_empty_runs(runs) == (0 in runs[1:])
    assert masks.compress_runs(runs, height, width) == masks.encode(mask)
    assert masks.area(runs) == mask.sum()
    assert masks.box(runs, height) == masks.box(runs_of(mask), height)
    assert masks.boundary_length(runs, height) == masks.boundary_length(runs_of(mask), height)
    as_written = coco.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    rle = Rle(height, width, as_written["counts"].decode())
    np.testing.assert_array_equal(masks.decode(rle), mask)
    assert masks.union([rle, rle]) == masks.encode(mask)


def test_runs_longer_than_one_group_are_read() -> None:
    mask = np.zeros((3000, 2000), np.uint8)
    mask[5:2990, 40:1990] = 1
    runs = runs_of(mask)
    assert runs.sum() == mask.size
    assert masks.area(runs) == mask.sum()
    assert masks.box(runs, 3000) == (40, 5, 1950, 2985)


def test_square_crop_is_filled_outside_the_image() -> None:
    square = masks.crop_square(np.full((2, 3, 3), 9, np.uint8), -1, 1, 4, fill=7)
    assert square.shape == (4, 4, 3)
    assert (square[0, 1:4] == 9).all()
    assert (square[1:] == 7).all()
    assert (square[:, 0] == 7).all()
    assert (masks.crop_square(np.ones((2, 2)), 10, 10, 3) == 0).all()


@pytest.mark.parametrize(
    "counts",
    ["", "é1", " ", "01\x00", "P", "oooooooo0", "m" * 5000 + "PPPP"],
    ids=["empty", "not ascii", "below range", "control", "ends inside", "beyond 32 bits", "far beyond"],
)
def test_strings_that_are_no_run_lengths_are_refused(counts: str) -> None:
    with pytest.raises(MaskError) as caught:
        masks.parse_counts(counts)
    assert caught.value.rule == "mask_readable"


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(min_codepoint=0, max_codepoint=130), max_size=40))
def test_no_string_reaches_the_decoder_unchecked(counts: str) -> None:
    try:
        mask = masks.decode(Rle(5, 4, counts))
    except MaskError:
        return
    assert mask.shape == (5, 4)
    assert masks.area(masks.parse_counts(counts)) == mask.sum()


@pytest.mark.parametrize(
    ("runs", "rule"),
    [
        ([3, 2], "runs_fill_mask"),
        ([3, 20], "runs_fill_mask"),
        ([-2, 22], "runs_not_negative"),
        ([], "runs_fill_mask"),
    ],
)
def test_runs_must_tile_the_mask(runs: list[int], rule: str) -> None:
    with pytest.raises(MaskError) as caught:
        masks.compress_runs(np.array(runs, np.int64), 5, 4)
    assert caught.value.rule == rule


@pytest.mark.parametrize("counts", [None, 3, ["1"], [1.5, 2], [True, 19], [2**40], {"a": 1}])
def test_uncompressed_counts_must_be_a_list_of_integers(counts: object) -> None:
    with pytest.raises(MaskError):
        masks.runs_of_list(counts)


def test_polygons_are_drawn_as_pycocotools_draws_them() -> None:
    polygons: list[list[float]] = [[1.0, 1.0, 8.0, 1.5, 7.5, 9.0], [10, 2, 14, 2, 14, 6, 10, 6]]
    theirs = coco.decode(coco.merge(coco.frPyObjects(polygons, 12, 16)))
    np.testing.assert_array_equal(masks.decode(masks.rasterise_polygons(polygons, 12, 16)), theirs)


@pytest.mark.parametrize(
    "polygons",
    [
        [],
        [[1, 1, 2, 2]],
        [[1, 1, 2, 2, 3, 3, 4]],
        [[0, 0, 5, 0, float("nan"), 5]],
        [[0, 0, 1e12, 0, 5, 5]],
        [["a"] * 6],
        [None],
        [[[1]] * 6],
    ],
)
def test_polygons_that_are_no_outline_are_refused(polygons: Any) -> None:
    with pytest.raises(MaskError):
        masks.rasterise_polygons(polygons, 12, 16)


@quick
@given(binary_masks, st.data())
def test_shrinking_runs_is_nearest_resize(mask: np.ndarray, data: st.DataObject) -> None:
    height, width = mask.shape
    new_height, new_width = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    shrunk = masks.shrink_runs(runs_of(mask), height, width, new_height, new_width)
    assert shrunk == masks.encode(masks.resize_nearest(mask, new_height, new_width))
    with pytest.raises(ValueError, match="larger"):
        masks.shrink_runs(runs_of(mask), height, width, height + 1, new_width)
