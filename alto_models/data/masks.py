"""Images with their masks, as `prepare_sa1b` stores them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alto_models.data.shards import DEFAULT_CACHE_BYTES, Picture, PictureCache, ShardRows
from alto_models.masks import Box, Rle, Runs, parse_counts
from data_contracts.schemas import MASKS_SCHEMA


@dataclass(frozen=True, kw_only=True)
class StoredMask:
    """One mask of an image; area and boundary_length in pixels."""

    mask_id: str
    rle: Rle
    box: Box
    area: int
    boundary_length: int

    @cached_property
    def runs(self) -> Runs:
        return parse_counts(self.rle.counts)


@dataclass(frozen=True, kw_only=True)
class ImageWithMasks:
    """image: (H, W, 3) uint8 RGB."""

    image_id: str
    image: Picture
    masks: tuple[StoredMask, ...]


class MaskImages:
    """Sequence of ImageWithMasks of a split ("train", "held_out", None for all), in file order.

    folder: the output folder of prepare_sa1b (all batches), or one batch. Raises InputError as ShardRows.
    """

    def __init__(
        self, folder: Path, split: str | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        self._rows = ShardRows(folder, MASKS_SCHEMA, split)
        self._pictures = PictureCache(cache_bytes)
        self._masks: dict[int, tuple[StoredMask, ...]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ImageWithMasks]:
        return (self[index] for index in range(len(self)))

    def masks(self, index: int) -> tuple[StoredMask, ...]:
        """Masks of an image, without decoding the image."""
        if index not in self._masks:
            row = self._rows.row(index, columns=["width", "height", "masks"])
            self._masks[index] = tuple(_mask(mask, row) for mask in row["masks"])
        return self._masks[index]

    def __getitem__(self, index: int) -> ImageWithMasks:
        row = self._rows.row(index, columns=["image_id", "image"])
        return ImageWithMasks(
            image_id=row["image_id"],
            image=self._pictures.get(index, row["image"]),
            masks=self.masks(index),
        )


def _mask(mask: dict[str, Any], row: dict[str, Any]) -> StoredMask:
    return StoredMask(
        mask_id=mask["mask_id"],
        rle=Rle(row["height"], row["width"], mask["counts"]),
        box=Box(*map(int, mask["box"])),
        area=mask["area"],
        boundary_length=mask["boundary_length"],
    )
