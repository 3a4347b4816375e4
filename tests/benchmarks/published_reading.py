"""Training samples the published way, from its description: everything from the source files, sample by sample.

The image is decoded from its jpg, 1 to 20 of its masks are decoded at full size and merged, a square around
them is cut and padded, and both are resized to the training resolution, the mask bicubically.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from alto_models.data.crops import CropSettings
from alto_models.data.shards import Picture
from alto_models.data.squares import FloatArray, Square


class Sample(NamedTuple):
    """image (3, S, S) in 0..1, mask (M, M)."""

    image: FloatArray
    mask: FloatArray


class PublishedReader:
    """The sample at a position, from a folder of `sa_N.jpg` + `sa_N.json`."""

    def __init__(self, folder: Path, settings: CropSettings) -> None:
        self._settings = settings
        self._annotations = sorted(folder.glob("sa_*.json"))

    def __len__(self) -> int:
        return len(self._annotations)

    def sample(self, position: int) -> Sample:
        path, settings = self._annotations[position], self._settings
        rng = np.random.default_rng(position)
        annotations = json.loads(path.read_text())["annotations"]
        with Image.open(path.with_suffix(".jpg")) as file:
            image = np.asarray(file.convert("RGB"))
        smallest = settings.min_area_share * max(image.shape[:2]) ** 2
        large = [each for each in annotations if each["area"] > smallest]
        count = int(rng.integers(1, min(settings.max_merged, len(large)) + 1))
        merged = merged_mask([large[i] for i in rng.choice(len(large), size=count, replace=False)])
        return cut_sample(image, merged, draw_square(merged, rng, settings), settings)


def merged_mask(annotations: list[dict[str, Any]]) -> NDArray[np.uint8]:
    """(H, W) of 0 and 1: pixels of any of the masks."""
    merged: NDArray[np.uint8] = np.maximum.reduce([coco.decode(each["segmentation"]) for each in annotations])
    return merged


def draw_square(mask: NDArray[np.uint8], rng: np.random.Generator, settings: CropSettings) -> Square:
    """A square of 4 to 50 times the area of the mask's box, at least twice its long side, that holds it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, height = int(rows[0]), int(rows[-1] - rows[0] + 1)
    left, width = int(columns[0]), int(columns[-1] - columns[0] + 1)
    share = rng.uniform(settings.min_box_ratio, settings.max_box_ratio)
    side = max(np.sqrt(share * width * height), settings.min_side_ratio * max(width, height))
    side = min(int(np.ceil(side)), max(mask.shape))
    return Square(
        left=int(rng.integers(max(0, left + width - side), left + 1)),
        top=int(rng.integers(max(0, top + height - side), top + 1)),
        side=side,
    )


def cut_sample(image: Picture, mask: NDArray[np.uint8], square: Square, settings: CropSettings) -> Sample:
    pixels = _padded(image, square).resize((settings.image_size,) * 2, Image.Resampling.BILINEAR)
    grey = _padded(mask * np.uint8(255), square).resize((settings.mask_size,) * 2, Image.Resampling.BICUBIC)
    return Sample(
        image=np.asarray(pixels, np.float32).transpose(2, 0, 1) / np.float32(255),
        mask=np.asarray(grey, np.float32) / np.float32(255),
    )


def _padded(pixels: NDArray[np.uint8], square: Square) -> Image.Image:
    """The square, black where it reaches beyond the image."""
    corner = (square.left, square.top, square.left + square.side, square.top + square.side)
    return Image.fromarray(pixels).crop(corner)
