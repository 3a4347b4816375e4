"""Squares cut from images and masks for the networks, and predicted masks put back.

Letters: H height, W width of the original image; S pixels of a square image side, M of a mask side,
K masks. Outside the image a square is black, and no mask reaches there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alto_models import masks as mask_arithmetic
from alto_models.data.shards import Picture
from alto_models.masks import Rle, Runs

FloatArray = NDArray[np.float32]


class Square(NamedTuple):
    """Square of the image plane in pixels of the original image; it may reach beyond the image."""

    left: int
    top: int
    side: int


def whole_square(height: int, width: int) -> Square:
    """The image padded to a square at its right or bottom, as SAM pads."""
    return Square(0, 0, max(height, width))


def cut_image(image: Picture, square: Square, size: int) -> FloatArray:
    """(3, S, S) float32 in [0, 1] of an (H, W, 3) uint8 image, antialiased bilinear."""
    cut = mask_arithmetic.crop_square(image, *square)
    resized = np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(resized.transpose(2, 0, 1), np.float32) / np.float32(255)


def cut_mask(runs: Runs, height: int, width: int, square: Square, size: int) -> NDArray[np.bool_]:
    """(M, M) bool by nearest neighbour, straight from the runs of an (H, W) mask."""
    rows = mask_arithmetic.grid(square.top, square.side, size)
    columns = mask_arithmetic.grid(square.left, square.side, size)
    return mask_arithmetic.sample(runs, height, width, rows, columns)


def coverage(mask: NDArray[np.bool_], factor: int) -> FloatArray:
    """Share of each cell of factor x factor pixels that an (M * factor, M * factor) mask covers: (M, M)."""
    size = mask.shape[0] // factor
    return mask.reshape(size, factor, size, factor).mean(axis=(1, 3), dtype=np.float32)


def square_pad_whole(
    image: Picture, masks: Sequence[Rle], image_size: int, mask_size: int, supersample: int = 1
) -> tuple[FloatArray, FloatArray]:
    """(3, S, S) image in [0, 1] and (K, M, M) masks of the whole square-padded image.

    The masks are in {0, 1}, or with supersample n > 1 the share of each pixel they cover, in n² steps.
    """
    height, width = image.shape[:2]
    square = whole_square(height, width)
    grids = [
        coverage(
            cut_mask(
                mask_arithmetic.parse_counts(mask.counts), height, width, square, mask_size * supersample
            ),
            supersample,
        )
        for mask in masks
    ]
    stacked = np.array(grids, np.float32).reshape(len(masks), mask_size, mask_size)
    return cut_image(image, square, image_size), stacked


def restore_whole(
    probabilities: NDArray[np.floating], height: int, width: int, threshold: float = 0.5
) -> NDArray[np.uint8]:
    """Inverse of square_pad_whole for predicted masks.

    probabilities: (M, M) over the square-padded image, in [0, 1]. Returns the (H, W) mask of 0 and 1:
    resized bilinearly to the square, padding cut off, then thresholded, so that edges lie between pixels.
    """
    side = max(height, width)
    size = probabilities.shape[0]
    covered = (0.0, 0.0, size * width / side, size * height / side)
    resized = Image.fromarray(np.asarray(probabilities, np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR, box=covered
    )
    return (np.asarray(resized) > threshold).astype(np.uint8)
