"""Segmentation measures against hand counts, brute force and pycocotools-style definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alto_models.metrics import (
    batch_boundary,
    batch_iou,
    boundary,
    boundary_iou,
    ciou,
    giou,
    iou,
    n_acc,
    overlap,
    t_acc,
)

MASKS = arrays(bool, (11, 17))
PAIRS = arrays(bool, (2, 11, 17))


def rectangle(rows: slice, columns: slice, size: tuple[int, int] = (20, 20)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    return mask


def test_iou_of_two_rectangles() -> None:
    left, right = rectangle(slice(0, 10), slice(0, 10)), rectangle(slice(0, 10), slice(5, 15))
    assert iou(left, right) == pytest.approx(50 / 150)


def test_iou_of_empty_masks() -> None:
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    assert iou(empty, empty) == 1
    assert iou(empty, full) == 0
    assert iou(full, empty) == 0


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        (np.zeros((3, 3)), np.zeros((3, 3), bool)),
        (np.zeros((3, 3), bool), np.zeros((3, 4), bool)),
        (np.zeros(9, bool), np.zeros(9, bool)),
    ],
)
def test_iou_refuses_other_types_and_shapes(prediction: np.ndarray, target: np.ndarray) -> None:
    with pytest.raises(ValueError, match="prediction"):
        iou(prediction, target)


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_batch_iou_equals_iou(pair: np.ndarray) -> None:
    batched = batch_iou(torch.from_numpy(pair[:1]), torch.from_numpy(pair[1:]))
    assert batched.item() == pytest.approx(iou(pair[0], pair[1]))


@settings(max_examples=30, deadline=None)
@given(MASKS, st.sampled_from([0.02, 0.1, 0.2]))
def test_boundary_is_what_lies_within_reach_of_outside(mask: np.ndarray, ratio: float) -> None:
    reach = max(1, round(ratio * math.hypot(*mask.shape)))
    padded = np.pad(mask, reach)
    expected = np.zeros_like(mask)
    for row, column in zip(*np.nonzero(mask), strict=True):
        window = padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
        expected[row, column] = not window.all()
    assert np.array_equal(boundary(mask, ratio), expected)
    assert np.array_equal(batch_boundary(torch.from_numpy(mask[None]), ratio)[0].numpy(), expected)


def test_boundary_iou_sees_what_iou_hides() -> None:
    disc = np.hypot(*np.indices((200, 200)) - 99.5) < 80
    rough = disc ^ rectangle(slice(90, 110), slice(15, 25), (200, 200))
    assert iou(rough, disc) > 0.99
    assert boundary_iou(rough, disc) < 0.95


def test_giou_ciou_and_no_target_accuracies() -> None:
    empty = np.zeros((10, 10), bool)
    half, quarter = (
        rectangle(slice(0, 5), slice(0, 10), (10, 10)),
        rectangle(slice(0, 5), slice(0, 5), (10, 10)),
    )
    pairs = [
        overlap(quarter, half),  # IoU 1/2
        overlap(empty, empty),  # no target, nothing predicted
        overlap(quarter, empty),  # no target, something predicted
        overlap(empty, quarter),  # missed target
    ]
    assert giou(pairs) == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert ciou(pairs) == pytest.approx(25 / (50 + 0 + 25 + 25))
    assert n_acc(pairs) == 0.5
    assert t_acc(pairs) == 0.5


def test_accuracies_without_such_samples() -> None:
    full = np.ones((2, 2), bool)
    assert math.isnan(n_acc([overlap(full, full)]))
    assert math.isnan(t_acc([overlap(~full, ~full)]))
    with pytest.raises(ValueError, match="no samples"):
        giou([])


@settings(max_examples=50, deadline=None)
@given(arrays(bool, (3, 11, 17)))
def test_ignored_pixels_count_neither_way(masks: np.ndarray) -> None:
    prediction, target, ignore = masks
    pair = overlap(prediction, target, ignore)
    counted = [(p, t) for p, t, i in zip(*(mask.ravel() for mask in masks), strict=True) if not i]
    assert pair.intersection == sum(p and t for p, t in counted)
    assert pair.union == sum(p or t for p, t in counted)
    assert pair.predicted_area == sum(p for p, _ in counted)
    assert pair.target_area == sum(t for _, t in counted)
    assert overlap(prediction | ignore, target, ignore) == overlap(prediction & ~ignore, target, ignore)
