"""Masks as PNG: every depth is read exactly, what is no mask says so; and masks as COCO writes them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from alto_models import masks as mask_arithmetic
from data_contracts.rules import Convention
from jobs.formats.mask_png import read_mask_png
from jobs.formats.raw import ProblemError, RawMask
from jobs.preparation.measuring import measure_mask
from tests.jobs.published_data import (
    mask_png,
    polygon_mask,
    uncompressed,
)
from tests.jobs.raw_data import HEIGHT, WIDTH, box_mask, jpeg, rle

SHAPE = box_mask(3, 4, 10, 6)


@pytest.mark.parametrize(
    "data",
    [
        mask_png(SHAPE),
        mask_png(SHAPE, mode="1"),
        mask_png(SHAPE, mode="P"),
        mask_png(SHAPE, mode="RGB"),
        mask_png(SHAPE, mode="RGBA"),
        mask_png(SHAPE, mode="LA"),
        mask_png(SHAPE, white=65535),
        mask_png(SHAPE, white=200),
    ],
    ids=["L", "1", "P", "RGB", "RGBA", "LA", "16 bit", "grey"],
)
def test_a_mask_png_of_any_depth_is_read_exactly(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mask.png").write_bytes(data)
    np.testing.assert_array_equal(coco.decode(read_mask_png(tmp_path / "mask.png")), SHAPE)


def class_colours() -> bytes:
    """A palette image of classes, as PASCAL VOC publishes its segmentations."""
    image = Image.fromarray(SHAPE, "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: mask_png(SHAPE, white=1), "brightest pixel 1 of 255"),
        (lambda: mask_png(SHAPE, white=127), "brightest pixel 127 of 255"),
        (lambda: mask_png(SHAPE, white=300), "brightest pixel 300 of 65535"),
        (class_colours, "mode P with colours"),
        (lambda: mask_png(SHAPE)[:-30], "truncated|broken|end"),
        (lambda: b"", "cannot identify"),
        (jpeg, "cannot identify"),
    ],
    ids=["0 and 1", "dark", "16 bit of 8", "class colours", "cut off", "empty", "jpeg"],
)
def test_what_is_no_black_and_white_mask_says_so(
    tmp_path: Path, make: Callable[[], bytes], reason: str
) -> None:
    (tmp_path / "mask.png").write_bytes(make())
    with pytest.raises(ProblemError, match=f"mask_readable: mask.png: .*({reason})"):
        read_mask_png(tmp_path / "mask.png")


outlines = st.lists(
    st.lists(
        st.tuples(st.floats(-10, WIDTH + 10, width=32), st.floats(-10, HEIGHT + 10, width=32)),
        min_size=3,
        max_size=9,
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=80, deadline=None)
@given(polygons=outlines)
def test_polygons_and_both_run_lengths_are_those_of_pycocotools(polygons: list[Any]) -> None:
    flat = [[value for point in points for value in point] for points in polygons]
    truth = polygon_mask(flat)
    for segmentation in (flat, uncompressed(truth), rle(truth)):
        mask = measure_mask(RawMask(mask_id="1", segmentation=segmentation), (WIDTH, HEIGHT), Convention())
        assert mask.rle is not None
        np.testing.assert_array_equal(mask_arithmetic.decode(mask.rle), truth)
        assert mask.values["area"] == truth.sum()
