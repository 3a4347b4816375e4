"""Squares cut from images and masks for the networks, and predicted masks put back.

Letters: H height, W width of the original image; S pixels of a square image side, M of a mask side,
K masks. Outside the image a square is black, and no mask reaches there.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from alto_models import masks as mask_arithmetic
from alto_models.data.shards import Picture
from alto_models.masks import Rle, Runs

FloatArray = NDArray[np.float32]

# A JPEG can be decoded at one of these parts of its size, for the price of fewer pixels.
JPEG_REDUCTIONS = (4, 2, 1)


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
    return fractions(cut_pixels(image, square, size))


def fractions(pixels: Picture) -> FloatArray:
    """Levels 0 … 255 as float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255)


def cut_pixels(image: Picture, square: Square, size: int) -> Picture:
    """(3, S, S) uint8 of an (H, W, 3) uint8 image, antialiased bilinear."""
    return _resized(image, square.left, square.top, square.side, size)


def cut_file(data: bytes, square: Square, size: int) -> Picture:
    """(3, S, S) uint8 of an image file, as cut_pixels, in less time.

    A JPEG is decoded at the smallest size from which the square is not enlarged, given that its corner lies on
    the lattice of `reduction`. Pixels then differ from those of a full decode by less than 2 levels in the
    mean, and by less than 20 for 99 %: the transform behind JPEG keeps more of fine detail than averaging does.
    """
    with Image.open(io.BytesIO(data)) as file:
        width, height = file.size
        wanted = reduction(square.side, size)
        file.draft(None, (max(width // wanted, 1), max(height // wanted, 1)))
        given = next(each for each in JPEG_REDUCTIONS if -(-width // each) == file.size[0])
        image = np.array(file if file.mode == "RGB" else file.convert("RGB"))
    # The last column and row of a smaller image lie partly outside.
    if width % given:
        image[:, -1] = image[:, -1] * (width % given / given)
    if height % given:
        image[-1] = image[-1] * (height % given / given)
    return _resized(image, square.left // given, square.top // given, square.side / given, size)


def reduction(side: int, size: int) -> int:
    """The part of its size (1, or 2, 4 times smaller) at which a square of `side` is not enlarged to `size`."""
    return next(each for each in JPEG_REDUCTIONS if each == 1 or each * size <= side)


def _resized(image: Picture, left: int, top: int, side: float, size: int) -> Picture:
    """(3, S, S) of a square of `side` pixels, black outside the image. Its black rows and columns are not computed."""
    height, width = image.shape[:2]
    rows, read_rows = _visible(height - top, side, size)
    columns, read_columns = _visible(width - left, side, size)
    region = _rectangle(image, left, top, read_columns, read_rows)
    resized = F.interpolate(
        torch.from_numpy(region).permute(2, 0, 1).unsqueeze(0),
        scale_factor=size / side * (1 + 1e-9),  # not one pixel less where the product is whole
        recompute_scale_factor=False,
        mode="bilinear",
        antialias=True,
    )[0, :, :rows, :columns].numpy()
    pixels = np.zeros((3, size, size), np.uint8)
    pixels[:, : resized.shape[1], : resized.shape[2]] = resized
    return pixels


def _visible(inside: int, side: float, size: int) -> tuple[int, int]:
    """Of a square of which `inside` pixels lie before the image's edge: how many output pixels are not all black,
    and how many input pixels their filter reaches."""
    step = side / size
    reach = max(step, 1.0)
    output = min(size, int(np.ceil((inside + reach) / step + 0.5)))
    return output, int(np.ceil(min(side, output * step + reach)))


def _rectangle(image: Picture, left: int, top: int, width: int, height: int) -> Picture:
    """Part (height, width, 3) of an image, black where it lies outside."""
    part = np.zeros((height, width, 3), np.uint8)
    x, y = max(left, 0), max(top, 0)
    shown = image[y : top + height, x : left + width]
    part[y - top : y - top + shown.shape[0], x - left : x - left + shown.shape[1]] = shown
    return part


def cut_mask(runs: Runs, height: int, width: int, square: Square, size: int) -> NDArray[np.bool_]:
    """(M, M) bool by nearest neighbour, straight from the runs of an (H, W) mask."""
    return cut_union([runs], height, width, square, size)


def cut_union(masks: Sequence[Runs], height: int, width: int, square: Square, size: int) -> NDArray[np.bool_]:
    """As cut_mask, of what any of the masks covers."""
    rows = mask_arithmetic.grid(square.top, square.side, size)
    columns = mask_arithmetic.grid(square.left, square.side, size)
    return mask_arithmetic.sample_union(masks, height, width, rows, columns)


def coverage(mask: NDArray[np.bool_], factor: int) -> FloatArray:
    """Share of each cell of factor x factor pixels that an (M * factor, M * factor) mask covers: (M, M)."""
    if factor == 1:
        return mask.astype(np.float32)
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
