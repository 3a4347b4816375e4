"""Training samples of the mask tokenizer: merged masks of one image on a square crop of it.

The "Multi-Target-SA1B" recipe of the paper: some random masks of an image are merged, and a square
around them is cut and padded. K merged masks share one crop, so that its pixels are encoded once.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from alto_models.data.masks import ImageWithMasks, MaskImages, StoredMask
from alto_models.data.squares import FloatArray, Square, coverage, cut_image, cut_mask, whole_square
from data_contracts.errors import InputError


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
    """image: (3, S, S) float32 in [0, 1]; masks: (K, M, M) float32 in [0, 1]; square in image pixels."""

    image_id: str
    square: Square
    image: FloatArray
    masks: FloatArray


@dataclass(frozen=True, kw_only=True)
class CropBatch:
    """images: (B, 3, S, S) float32 in [0, 1]; masks: (B, K, M, M) float32, in {0, 1}
    unless supersampled."""

    image_ids: tuple[str, ...]
    images: FloatArray
    masks: FloatArray


class CropReader:
    """Endless stream of crops; the crop at a position depends on the seed and the position only.

    Every image with a large enough mask is drawn once per epoch, in an order of its own each epoch.
    """

    def __init__(self, images: MaskImages, settings: CropSettings, seed: int) -> None:
        self.settings = settings
        self._images = images
        self._seed = seed
        self._usable = [i for i in range(len(images)) if eligible_masks(images.masks(i), settings)]
        if not self._usable:
            raise InputError("no image has a mask as large as min_area_share demands; lower it")
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __len__(self) -> int:
        """Crops in an epoch."""
        return len(self._usable)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, 0, epoch]).permutation(self._usable)

    def crop(self, position: int) -> Crop:
        epoch, place = divmod(position, len(self._usable))
        rng = np.random.default_rng([self._seed, 1, position])
        return draw_crop(self._images[int(self._order(epoch)[place])], self.settings, rng)

    def batch(self, positions: range) -> CropBatch:
        """The crops at `positions`."""
        crops = [self.crop(position) for position in positions]
        return CropBatch(
            image_ids=tuple(crop.image_id for crop in crops),
            images=np.stack([crop.image for crop in crops]),
            masks=np.stack([crop.masks for crop in crops]),
        )


def eligible_masks(masks: Sequence[StoredMask], settings: CropSettings) -> list[StoredMask]:
    """Masks of an image large enough to be drawn."""
    share = settings.min_area_share
    return [mask for mask in masks if mask.area > share * max(mask.rle.height, mask.rle.width) ** 2]


def draw_crop(image: ImageWithMasks, settings: CropSettings, rng: np.random.Generator) -> Crop:
    """One crop of an image with at least one eligible mask."""
    height, width = image.image.shape[:2]
    eligible = eligible_masks(image.masks, settings)
    target = _draw_subset(eligible, settings.max_merged, rng)
    if rng.random() < settings.whole_image_share:
        square = whole_square(height, width)
    else:
        square = _draw_square(target, height, width, settings, rng)
    inside = [mask for mask in eligible if _mostly_inside(mask, square)]
    targets = [target]
    for _ in range(settings.masks_per_crop - 1):
        targets.append(_draw_subset(inside or target, settings.max_merged, rng))
    return Crop(
        image_id=image.image_id,
        square=square,
        image=cut_image(image.image, square, settings.image_size),
        masks=np.stack([_merged(masks, square, settings) for masks in targets]),
    )


def _draw_subset(masks: list[StoredMask], most: int, rng: np.random.Generator) -> list[StoredMask]:
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
    return Square(_place(left, right, side, width, rng), _place(top, bottom, side, height, rng), side)


def _place(first: int, stop: int, side: int, limit: int, rng: np.random.Generator) -> int:
    """Start of a length that holds first … stop, and stays within the image where both are possible."""
    if side >= limit:
        return 0
    return int(rng.integers(max(stop - side, 0), min(first, limit - side) + 1))


def _mostly_inside(mask: StoredMask, square: Square) -> bool:
    """Whether at least half of the mask's box lies in the square."""
    box = mask.box
    shared_width = min(box.x + box.width, square.left + square.side) - max(box.x, square.left)
    shared_height = min(box.y + box.height, square.top + square.side) - max(box.y, square.top)
    return 2 * max(shared_width, 0) * max(shared_height, 0) >= box.width * box.height


def _merged(masks: list[StoredMask], square: Square, settings: CropSettings) -> FloatArray:
    size = settings.mask_size * settings.supersample
    grids = [cut_mask(mask.runs, mask.rle.height, mask.rle.width, square, size) for mask in masks]
    return coverage(np.logical_or.reduce(grids), settings.supersample)


Batch = TypeVar("Batch")


def prefetched(read: Callable[[int], Batch], steps: range, depth: int = 2) -> Iterator[Batch]:
    """read(step) for each step in turn, up to `depth` of them read ahead by one background thread."""
    pending: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            for step in steps:
                pending.append(pool.submit(read, step))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
