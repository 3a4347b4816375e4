"""Prepared question sets (POPE, VQAv2, MME), image by image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from alto_models.data.shards import ShardRows
from data_contracts.schemas import VQA_SCHEMA


@dataclass(frozen=True, kw_only=True)
class VqaQuestion:
    """answers: one of POPE and MME ("yes" or "no"), ten of VQAv2. Other fields: as in VQA_SCHEMA."""

    question_id: str
    scoring: str
    question: str
    answers: tuple[str, ...]
    category: str | None
    question_type: str | None
    pair: str | None


@dataclass(frozen=True, kw_only=True)
class VqaImage:
    """image: the bytes of its file, for `alto_models.data.shards.decode_image`."""

    image_id: str
    width: int
    height: int
    image: bytes
    questions: tuple[VqaQuestion, ...]


def holds_questions(folder: Path) -> bool:
    """Whether a prepared partition is a question set."""
    shard = min(folder.glob("shard-*.parquet"), default=None)
    return shard is not None and pq.read_schema(shard).metadata == VQA_SCHEMA.metadata


class VqaImages:
    """The images of a prepared partition with their questions, in file order.

    Raises InputError where the folder holds no shards, or those of another schema.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = ShardRows(folder, VQA_SCHEMA, None)

    def __len__(self) -> int:
        return len(self._rows)

    def questions(self, index: int) -> tuple[VqaQuestion, ...]:
        """Questions about an image, without reading the image."""
        return _questions(self._rows.row(index, ["questions"]))

    def __getitem__(self, index: int) -> VqaImage:
        return _image(self._rows.row(index))

    def __iter__(self) -> Iterator[VqaImage]:
        return (self[index] for index in range(len(self)))


def _questions(row: dict[str, Any]) -> tuple[VqaQuestion, ...]:
    return tuple(
        VqaQuestion(**question | {"answers": tuple(question["answers"])}) for question in row["questions"]
    )


def _image(row: dict[str, Any]) -> VqaImage:
    return VqaImage(
        image_id=row["image_id"],
        width=row["width"],
        height=row["height"],
        image=row["image"],
        questions=_questions(row),
    )
