"""Training samples of the mask tokenizer: merged masks of one image on a square crop of it.

The "Multi-Target-SA1B" recipe of the paper: some random masks of an image are merged, and a square
around them is cut and padded. K merged masks share one crop, so that its pixels are encoded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alto_models.data.masks import ImageWithMasks, StoredMask, stored_masks
from alto_models.data.order import SampleOrder, Window
from alto_models.data.row_groups import DEFAULT_CACHE_BYTES, Least, RowGroups, RowIndex
from alto_models.data.shards import Picture, decoding
from alto_models.data.squares import (
    FloatArray,
    Square,
    coverage,
    cut_file,
    cut_pixels,
    cut_union,
    reduction,
    whole_square,
)
from data_contracts.schemas import MASKS_SCHEMA

# Row groups are asked for so many steps before their first row.
AHEAD_STEPS = 16


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How a crop and its masks are drawn; the defaults are the paper's."""

    image_size: int = 1024  # pixels of a side of the image square
    mask_size: int = 256  # pixels of a side of the masks
    masks_per_crop: int = 1  # K merged masks drawn from each crop
    max_merged: int = 20  # 1 … this many masks of the image are merged into one
    min_area_share: float = 0.005  # of the long side squared; smaller masks are not drawn
    min_box_ratio: float = 4.0  # crop area over box area, drawn uniformly …
    max_box_ratio: float = 50.0  # … between these
    min_side_ratio: float = 2.0  # crop side over the long side of the box, at least
    supersample: int = 1  # 1: binary masks; n: the share of each pixel that is covered, in n² steps
    whole_image_share: float = 0.0  # of crops that are the whole square-padded image


@dataclass(frozen=True, kw_only=True)
class Crop:
    """image: (3, S, S) uint8; masks: (K, M, M) float32 in [0, 1]; square in image pixels."""

    image_id: str
    square: Square
    image: Picture
    masks: FloatArray


@dataclass(frozen=True, kw_only=True)
class CropBatch:
    """images: (B, 3, S, S) uint8; masks: (B, K, M, M) float32, in {0, 1} unless supersampled."""

    image_ids: tuple[str, ...]
    images: Picture
    masks: FloatArray


COLUMNS = ("image_id", "width", "height", "image", "masks")


def croppable_rows(folder: Path | str, split: str, settings: CropSettings) -> RowIndex:
    """The images of a split with a mask that is large enough to be drawn. Raises InputError as RowIndex.read."""
    least = Least("largest_mask_share", settings.min_area_share, "min_area_share")
    return RowIndex.read(folder, MASKS_SCHEMA, split, least)


class CropReader:
    """Endless stream of crops in the order of `SampleOrder`: each image once an epoch.

    The crop at a position depends on seed, position and crops_per_step only. For one thread; a copy in another
    process begins with nothing read.
    in_turn: for each crop of a step, positions are asked for from step to step; what comes next is read ahead.
    cache_bytes: of row groups kept beyond those, so that small data sets are read once.
    """

    def __init__(
        self,
        rows: RowIndex,
        settings: CropSettings,
        seed: int,
        crops_per_step: int = 1,
        in_turn: bool = True,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.settings = settings
        self._rows = rows
        self._seed = seed
        self._crops_per_step = crops_per_step
        self._in_turn = in_turn
        self._cache_bytes = cache_bytes
        self._order = SampleOrder(rows.group_sizes, crops_per_step, seed)
        self._groups = RowGroups(rows, COLUMNS, cache_bytes)
        self._windows: dict[tuple[int, int], Window] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        how = (self._crops_per_step, self._in_turn, self._cache_bytes)
        return CropReader, (self._rows, self.settings, self._seed, *how)

    def __len__(self) -> int:
        """Crops in an epoch."""
        return len(self._order)

    def crop(self, position: int) -> Crop:
        """Raises InputError naming the shard, and the image, that cannot be read."""
        if self._in_turn:
            self._read_ahead(position)
        group, number = self._order.at(position)
        row = int(self._rows.rows[self._rows.starts[group] + number])
        table = self._groups.get(group)
        rng = np.random.default_rng([self._seed, 1, position])
        shard = f"{self._rows.folder.name}/{self._rows.groups[group].shard}"
        with decoding(f"{shard}: image {table['image_id'][row]}"):
            return _crop_of_row(table, row, self.settings, rng)

    def _read_ahead(self, position: int) -> None:
        """Hold the row groups of the windows that this position and one some steps later lie in."""
        place = position % self._crops_per_step
        for ahead in (0, AHEAD_STEPS):
            window = self._order.window(position + ahead * self._crops_per_step)
            if self._windows.get((place, ahead)) != window:
                self._windows[place, ahead] = window
                self._groups.hold((place, ahead), self._order.groups(window))

    def batch(self, positions: range) -> CropBatch:
        """The crops at `positions`."""
        crops = [self.crop(position) for position in positions]
        return CropBatch(
            image_ids=tuple(crop.image_id for crop in crops),
            images=np.stack([crop.image for crop in crops]),
            masks=np.stack([crop.masks for crop in crops]),
        )


def _crop_of_row(table: pa.Table, row: int, settings: CropSettings, rng: np.random.Generator) -> Crop:
    height, width = table["height"][row].as_py(), table["width"][row].as_py()
    masks = table["masks"][row].values
    large = _large_enough(masks.field("area").to_numpy(), height, width, settings)
    eligible = stored_masks(masks.take(pa.array(np.flatnonzero(large))).to_pylist(), height, width)
    square, targets = _draw(eligible, height, width, settings, rng)
    return Crop(
        image_id=table["image_id"][row].as_py(),
        square=square,
        image=cut_file(table["image"][row].as_buffer(), square, settings.image_size),
        masks=targets,
    )


def _large_enough(
    areas: NDArray[np.int64], height: int, width: int, settings: CropSettings
) -> NDArray[np.bool_]:
    """Of masks of these areas. In float32, as `largest_mask_share` is stored: the largest mask decides for both."""
    shares: NDArray[np.bool_] = (areas / max(height, width) ** 2).astype(np.float32) > settings.min_area_share
    return shares


def eligible_masks(masks: Sequence[StoredMask], settings: CropSettings) -> list[StoredMask]:
    """Masks of an image large enough to be drawn."""
    if not masks:
        return []
    areas = np.array([mask.area for mask in masks], np.int64)
    large = _large_enough(areas, masks[0].rle.height, masks[0].rle.width, settings)
    return [mask for mask, drawn in zip(masks, large, strict=True) if drawn]


def draw_crop(image: ImageWithMasks, settings: CropSettings, rng: np.random.Generator) -> Crop:
    """One crop of an image with at least one eligible mask."""
    height, width = image.image.shape[:2]
    square, targets = _draw(eligible_masks(image.masks, settings), height, width, settings, rng)
    return Crop(
        image_id=image.image_id,
        square=square,
        image=cut_pixels(image.image, square, settings.image_size),
        masks=targets,
    )


def _draw(
    eligible: Sequence[StoredMask], height: int, width: int, settings: CropSettings, rng: np.random.Generator
) -> tuple[Square, FloatArray]:
    """A square of the image and K merged masks on it (K, M, M); the first is whole."""
    target = _draw_subset(eligible, settings.max_merged, rng)
    if rng.random() < settings.whole_image_share:
        square = whole_square(height, width)
    else:
        square = _draw_square(target, height, width, settings, rng)
    inside = [mask for mask in eligible if _mostly_inside(mask, square)]
    targets = [target]
    for _ in range(settings.masks_per_crop - 1):
        targets.append(_draw_subset(inside or target, settings.max_merged, rng))
    return square, np.stack([_merged(masks, square, settings) for masks in targets])


def _draw_subset(masks: Sequence[StoredMask], most: int, rng: np.random.Generator) -> list[StoredMask]:
    count = int(rng.integers(1, min(most, len(masks)) + 1))
    return [masks[i] for i in rng.choice(len(masks), size=count, replace=False)]


def _draw_square(
    target: list[StoredMask], height: int, width: int, settings: CropSettings, rng: np.random.Generator
) -> Square:
    """Square around the target, no larger than the image needs, at a random place."""
    left = min(mask.box.x for mask in target)
    top = min(mask.box.y for mask in target)
    right = max(mask.box.x + mask.box.width for mask in target)
    bottom = max(mask.box.y + mask.box.height for mask in target)
    box_width, box_height = right - left, bottom - top
    ratio = rng.uniform(settings.min_box_ratio, settings.max_box_ratio)
    side = max(np.sqrt(ratio * box_width * box_height), settings.min_side_ratio * max(box_width, box_height))
    side = min(int(np.ceil(side)), max(height, width))
    # Where the image has more pixels than needed: on the lattice on which it is decoded in less time.
    step = reduction(side, settings.image_size)
    return Square(
        _place(left, right, side, width, step, rng), _place(top, bottom, side, height, step, rng), side
    )


def _place(first: int, stop: int, side: int, limit: int, step: int, rng: np.random.Generator) -> int:
    """Start of a length that holds first … stop, and stays within the image where both are possible.

    A multiple of `step`; if none suits, the one before, which is off by less than a pixel of the result.
    """
    if side >= limit:
        return 0
    least, most = max(stop - side, 0), min(first, limit - side)
    start = int(rng.integers(least, most + 1))
    before = start - start % step
    return before + step if before < least and before + step <= most else before


def _mostly_inside(mask: StoredMask, square: Square) -> bool:
    """Whether at least half of the mask's box lies in the square."""
    box = mask.box
    shared_width = min(box.x + box.width, square.left + square.side) - max(box.x, square.left)
    shared_height = min(box.y + box.height, square.top + square.side) - max(box.y, square.top)
    return 2 * max(shared_width, 0) * max(shared_height, 0) >= box.width * box.height


def _merged(masks: list[StoredMask], square: Square, settings: CropSettings) -> FloatArray:
    size, rle = settings.mask_size * settings.supersample, masks[0].rle
    merged = cut_union([mask.runs for mask in masks], rle.height, rle.width, square, size)
    return coverage(merged, settings.supersample)
