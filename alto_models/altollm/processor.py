"""Images as the vision tower wants them: one padded square, or tiles as InternVL has them; normalised."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def square_thumbnail(image_HW3: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:  # noqa: N803
    """The whole image in the upper left of a (side, side, 3) uint8 square, the rest in the mean colour."""
    _require_image(image_HW3)
    height, width = image_HW3.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = Image.fromarray(image_HW3).resize(
        size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    )
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = np.round(np.array(IMAGE_MEAN) * 255).astype(np.uint8)
    square[: size[1], : size[0]] = np.asarray(resized)
    return square


def tiles(image_HW3: NDArray[np.uint8], side: int, max_tiles: int) -> NDArray[np.uint8]:  # noqa: N803
    """(T, side, side, 3) uint8: what the vision tower sees of an image.

    max_tiles 1: the padded square. Else, as InternVL has it, the image resized to the grid of `tile_grid` and cut
    into its tiles, row by row, and where these are several the whole image as one more (T <= max_tiles + 1).
    """
    if max_tiles == 1:
        return square_thumbnail(image_HW3, side)[None]
    _require_image(image_HW3)
    height, width = image_HW3.shape[:2]
    columns, rows = tile_grid(height, width, side, max_tiles)
    resized = _resized(image_HW3, columns * side, rows * side)
    cut = resized.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    if len(cut) == 1:
        return cut
    return np.concatenate([cut, _resized(image_HW3, side, side)[None]])


def tile_grid(height: int, width: int, side: int, max_tiles: int) -> tuple[int, int]:
    """(columns, rows), at most `max_tiles` together: the grid whose shape is nearest to the image's.

    Of equally near ones the larger, unless it has twice the pixels of the image or more: InternVL's
    `dynamic_preprocess` (Chen et al., "How Far Are We to GPT-4V?", 2024).
    """
    sizes = range(1, max_tiles + 1)
    grids = [(columns, rows) for columns in sizes for rows in sizes if columns * rows <= max_tiles]
    best, least = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        difference = abs(width / height - columns / rows)
        affordable = 2 * height * width > side * side * columns * rows
        if difference < least or (difference == least and affordable):
            best, least = (columns, rows), difference
    return best


def _resized(image_HW3: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:  # noqa: N803
    return np.asarray(Image.fromarray(image_HW3).resize((width, height), Image.Resampling.BICUBIC))


def _require_image(image_HW3: NDArray[np.uint8]) -> None:  # noqa: N803
    if image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or image_HW3.dtype != np.uint8:
        raise ValueError(f"an image must be (H, W, 3) uint8, got {image_HW3.shape} {image_HW3.dtype}")


def normalise(images_BSS3: NDArray[np.uint8]) -> Tensor:  # noqa: N803
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32, mean 0 and deviation 1 a channel over natural images."""
    pixels = torch.from_numpy(images_BSS3).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    return (pixels - mean) / std
