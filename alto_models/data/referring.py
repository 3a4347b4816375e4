"""Images with referring expressions and their masks, as the prepare stages store them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alto_models.data.row_groups import DEFAULT_CACHE_BYTES
from alto_models.data.shards import Picture, PictureCache, ShardRows
from alto_models.masks import Box, Rle, decode
from data_contracts.schemas import REFERRING_SCHEMA


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One object an expression is true of; area in pixels."""

    instance_id: str
    category: str | None
    rle: Rle
    box: Box
    area: int


@dataclass(frozen=True, kw_only=True)
class ReferringRecord:
    """One target (or none) and the expressions that name it, each on its own.

    rle: union of the instances, None exactly where no_target. area, boundary_length: pixels of the union.
    ignore: pixels that count neither way, None for none.
    """

    record_id: str
    expressions: tuple[str, ...]
    no_target: bool
    rle: Rle | None
    area: int
    boundary_length: int
    instances: tuple[Instance, ...]
    ignore: Rle | None = None

    @property
    def ignored(self) -> NDArray[np.bool_] | None:
        """`ignore` as (H, W)."""
        return None if self.ignore is None else decode(self.ignore).astype(bool)


@dataclass(frozen=True, kw_only=True)
class ReferringImage:
    """image: (H, W, 3) uint8 RGB. source: data set (partition) it comes from."""

    image_id: str
    source: str
    split: str
    image: Picture
    records: tuple[ReferringRecord, ...]


class ReferringImages:
    """Sequence of ReferringImage of a split (None for all), in file order; records are in memory, images are not.

    folder: the output folder of prepare_referring or prepare_benchmark (all partitions), or one partition.
    Record ids are unique within a source. Raises InputError as ShardRows.
    """

    def __init__(
        self, folder: Path | str, split: str | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        self._rows = ShardRows(folder, REFERRING_SCHEMA, split)
        self._pictures = PictureCache(cache_bytes)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ReferringImage]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> tuple[str, str]:
        """Source and id of an image."""
        row = self._rows.row(index, columns=["source", "image_id"])
        return row["source"], row["image_id"]

    def records(self, index: int) -> tuple[ReferringRecord, ...]:
        """Records of an image, without decoding the image."""
        row = self._rows.row(index, columns=["width", "height", "records"])
        return tuple(_record(record, row["height"], row["width"]) for record in row["records"])

    def __getitem__(self, index: int) -> ReferringImage:
        row = self._rows.row(index, columns=["image_id", "source", "split", "image"])
        return ReferringImage(
            image_id=row["image_id"],
            source=row["source"],
            split=row["split"],
            image=self._pictures.get(index, row["image"], f"image {row['image_id']} of {row['source']}"),
            records=self.records(index),
        )


def _record(record: dict[str, Any], height: int, width: int) -> ReferringRecord:
    counts = record["counts"]
    return ReferringRecord(
        record_id=record["record_id"],
        expressions=tuple(record["expressions"]),
        no_target=record["no_target"],
        rle=None if counts is None else Rle(height, width, counts),
        area=record["area"],
        boundary_length=record["boundary_length"],
        instances=tuple(_instance(instance, height, width) for instance in record["instances"]),
        ignore=None if record["ignore"] is None else Rle(height, width, record["ignore"]),
    )


def _instance(instance: dict[str, Any], height: int, width: int) -> Instance:
    return Instance(
        instance_id=instance["instance_id"],
        category=instance["category"],
        rle=Rle(height, width, instance["counts"]),
        box=Box(*map(int, instance["box"])),
        area=instance["area"],
    )
