"""The questions of a prepared benchmark: every expression of every record, image by image."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alto_models import masks
from alto_models.data.shards import Picture, ShardRows, decode_image
from alto_models.masks import Rle
from alto_models.metrics import boundary, counted
from data_contracts.schemas import REFERRING_SCHEMA

Mask = NDArray[np.bool_]
NO_TARGET, SEVERAL = "no target", "several"  # in the place of a category
EvaluationProtocol = Literal["standard", "released"]


def all_descriptions(expressions: Sequence[str]) -> str:
    """One expression for all that are true of a target, worded as ALToLLM's released evaluation does."""
    if len(expressions) == 1:
        return expressions[0]
    numbered = " ".join(f"{number}. {text}" for number, text in enumerate(expressions, start=1))
    return f"Meet all the descriptions: {numbered}"


@dataclass(frozen=True)
class Instance:
    """One annotated object of an image."""

    instance_id: str
    category: str
    rle: Rle
    area: int


@dataclass(frozen=True)
class Record:
    """What one or more expressions of an image mean. rle is None where they mean nothing in it.
    ignore: pixels that count neither way, None for none."""

    record_id: str
    expressions: tuple[str, ...]
    rle: Rle | None
    area: int
    boundary_length: int
    instances: tuple[Instance, ...]
    ignore: Rle | None = None

    @property
    def category(self) -> str:
        names = sorted({instance.category for instance in self.instances})
        return NO_TARGET if self.rle is None else names[0] if len(names) == 1 else SEVERAL

    @property
    def complexity(self) -> float | None:
        """Squared boundary pixels over 4 pi x area: about 0.8 for a disc, more for winding outlines."""
        return None if self.rle is None else self.boundary_length**2 / (4 * math.pi * self.area)


@dataclass(frozen=True)
class BenchmarkImage:
    """One image with its records; heavy fields are decoded when first asked for."""

    image_id: str
    width: int
    height: int
    data: bytes
    records: tuple[Record, ...]

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "BenchmarkImage":
        """row: one row of `REFERRING_SCHEMA`."""
        height, width = row["height"], row["width"]

        def rle(counts: str | None) -> Rle | None:
            return None if counts is None else Rle(height, width, counts)

        records = tuple(
            Record(
                record_id=record["record_id"],
                expressions=tuple(record["expressions"]),
                rle=rle(record["counts"]),
                area=record["area"],
                boundary_length=record["boundary_length"],
                instances=tuple(
                    Instance(
                        item["instance_id"],
                        item["category"] or "unnamed",
                        Rle(height, width, item["counts"]),
                        item["area"],
                    )
                    for item in record["instances"]
                ),
                ignore=rle(record["ignore"]),
            )
            for record in row["records"]
        )
        return cls(row["image_id"], width, height, row["image"], records)

    @classmethod
    def without_picture(cls, rows: ShardRows, index: int) -> "BenchmarkImage":
        """What is known of the image at a position, its pixels left out."""
        columns = [name for name in REFERRING_SCHEMA.names if name != "image"]
        return cls.from_row(rows.row(index, columns) | {"image": b""})

    @cached_property
    def picture(self) -> Picture:
        return decode_image(self.data)

    @cached_property
    def objects(self) -> tuple[Instance, ...]:
        """All objects any record of the image knows of, ordered by id."""
        found = {instance.instance_id: instance for record in self.records for instance in record.instances}
        return tuple(found[name] for name in sorted(found))

    @cached_property
    def truths(self) -> dict[str, "Truth"]:
        """Record id -> decoded truth."""
        return {record.record_id: Truth.of(record, self) for record in self.records}

    def questions(self, protocol: EvaluationProtocol) -> Iterator["Question"]:
        """`standard`: each expression of a record on its own; `released`: all of them in one question."""
        for record in self.records:
            if protocol == "released":
                yield Question(self, record, 0, all_descriptions(record.expressions))
                continue
            for index, expression in enumerate(record.expressions):
                yield Question(self, record, index, expression)


@dataclass(frozen=True)
class Truth:
    """Decoded true mask (H, W) of a record (all False for no target), its boundary region, and the pixels
    that count neither way (None for none), which are in neither."""

    mask: Mask
    boundary: Mask
    ignore: Mask | None

    @classmethod
    def of(cls, record: Record, image: BenchmarkImage) -> "Truth":
        if record.rle is None:
            mask = np.zeros((image.height, image.width), dtype=bool)
        else:
            mask = masks.decode(record.rle).astype(bool)
        ignore = None if record.ignore is None else masks.decode(record.ignore).astype(bool)
        mask = counted(mask, ignore)
        return cls(mask, boundary(mask), ignore)


@dataclass(frozen=True)
class Question:
    """One expression of one record, to be answered with a mask of `image`."""

    image: BenchmarkImage
    record: Record
    expression_index: int
    expression: str

    def expression_of_another_record(self) -> str:
        """An expression of the same image that means something else; "" where the image has none.

        The records that follow are taken first, going round.
        """
        records = self.image.records
        place = records.index(self.record)
        for other in records[place + 1 :] + records[:place]:
            if other.rle != self.record.rle:
                return other.expressions[0]
        return ""
