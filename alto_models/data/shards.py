"""Rows of prepared Parquet shards, found by position, and the decoding of their images."""

import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from alto_models.data.row_groups import DEFAULT_CACHE_BYTES, RowGroups, RowIndex
from data_contracts.errors import InputError, first_line

Picture = NDArray[np.uint8]


class ShardRows:
    """All rows of the shards of a folder that belong to a split, in file order; `split` None takes every row.

    folder: a partition, or the folder above the partitions; a path or `s3://bucket/prefix`.
    large: columns that are read when they are asked for, a row group at a time; the others stay in memory.
    Raises InputError where there are no shards, no such rows, or another schema, and where a shard cannot be read.
    """

    def __init__(
        self, folder: Path | str, schema: pa.Schema, split: str | None, large: Sequence[str] = ("image",)
    ) -> None:
        self._index = RowIndex.read(folder, schema, split)
        self._large = RowGroups(self._index, large)
        small = [name for name in schema.names if name not in large]
        self._small = self._index.table(small)

    def __len__(self) -> int:
        return len(self._index)

    def row(self, index: int, columns: list[str] | None = None) -> dict[str, Any]:
        """Row at a position as plain Python values, all columns or those named."""
        group, place = self._index.group_of(index)
        row: dict[str, Any] = {}
        for table, at in ((self._small, index), (self._large, place)):
            wanted = [name for name in table.column_names if columns is None or name in columns]
            if wanted:
                rows = table if isinstance(table, pa.Table) else table.get(group)
                row |= rows.select(wanted).slice(at, 1).to_pylist()[0]
        return row


class PictureCache:
    """Decoded images, the least recently used dropped beyond a number of bytes."""

    def __init__(self, capacity_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._capacity = capacity_bytes
        self._bytes = 0
        self._pictures: OrderedDict[int, Picture] = OrderedDict()

    def get(self, index: int, data: bytes, name: str = "a stored image") -> Picture:
        """Picture of row `index`, whose image bytes are `data`. Raises InputError with the image's name."""
        if index in self._pictures:
            self._pictures.move_to_end(index)
            return self._pictures[index]
        picture = decode_image(data, name)
        self._pictures[index] = picture
        self._bytes += picture.nbytes
        while self._bytes > self._capacity and len(self._pictures) > 1:
            self._bytes -= self._pictures.popitem(last=False)[1].nbytes
        return picture


def decode_image(data: bytes, name: str = "a stored image") -> Picture:
    """(H, W, 3) uint8 RGB of image bytes; EXIF orientation is not applied.

    Raises InputError with the image's name where the bytes, which were whole when they were stored, are not.
    """
    with decoding(name), Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """What decoders raise for damaged bytes becomes InputError."""
    try:
        yield
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{name} cannot be decoded: {first_line(error)}; run the prepare stage again or copy its output anew"
        ) from None
