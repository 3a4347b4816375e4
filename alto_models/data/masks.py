"""Images with their masks, as `prepare_sa1b` stores them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alto_models.data.row_groups import DEFAULT_CACHE_BYTES
from alto_models.data.shards import Picture, PictureCache, ShardRows
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
    """Sequence of ImageWithMasks of a split ("train", "held_out", None for all), in file order; read as asked for.

    folder: the output folder of prepare_sa1b (all batches), or one batch. Raises InputError as ShardRows.
    """

    def __init__(
        self, folder: Path | str, split: str | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        self._rows = ShardRows(folder, MASKS_SCHEMA, split, large=("image", "masks"))
        self._pictures = PictureCache(cache_bytes)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ImageWithMasks]:
        return (self[index] for index in range(len(self)))

    def masks(self, index: int) -> tuple[StoredMask, ...]:
        """Masks of an image, without decoding the image."""
        row = self._rows.row(index, columns=["width", "height", "masks"])
        return stored_masks(row["masks"], row["height"], row["width"])

    def __getitem__(self, index: int) -> ImageWithMasks:
        row = self._rows.row(index, columns=["image_id", "image"])
        return ImageWithMasks(
            image_id=row["image_id"],
            image=self._pictures.get(index, row["image"], f"image {row['image_id']}"),
            masks=self.masks(index),
        )


def stored_masks(rows: list[dict[str, Any]], height: int, width: int) -> tuple[StoredMask, ...]:
    """Entries of the column `masks` of an image of that size."""
    return tuple(
        StoredMask(
            mask_id=row["mask_id"],
            rle=Rle(height, width, row["counts"]),
            box=Box(*map(int, row["box"])),
            area=row["area"],
            boundary_length=row["boundary_length"],
        )
        for row in rows
    )
