"""Rows of prepared Parquet shards, found by position, and the decoding of their images."""

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from data_contracts.errors import InputError

Picture = NDArray[np.uint8]

DEFAULT_CACHE_BYTES = 256 * 2**20


class ShardRows:
    """All rows of the shards below a folder that belong to a split, in file order, in memory.

    folder: a partition, or the folder above the partitions. split None takes every row.
    Raises InputError where there are no shards, no such rows, or another schema.
    """

    def __init__(self, folder: Path, schema: pa.Schema, split: str | None) -> None:
        paths = sorted(folder.rglob("shard-*.parquet"))
        if not paths:
            raise InputError(f"{folder}: no shard-*.parquet inside; run the prepare stage first")
        self._table = pa.concat_tables([_read(path, schema, split) for path in paths])
        if not len(self._table):
            raise InputError(f"{folder}: no image of split {split!r}")

    def __len__(self) -> int:
        return len(self._table)

    def row(self, index: int, columns: list[str] | None = None) -> dict[str, Any]:
        """Row at a position as plain Python values, all columns or those named."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        table = self._table if columns is None else self._table.select(columns)
        return table.slice(index, 1).to_pylist()[0]


def _read(path: Path, schema: pa.Schema, split: str | None) -> pa.Table:
    stored = pq.read_schema(path)
    if not stored.equals(schema) or stored.metadata != schema.metadata:
        raise InputError(f"{path}: not {schema.metadata}; run the prepare stage again")
    filters = None if split is None else [("split", "==", split)]
    return pq.read_table(path, filters=filters)


class PictureCache:
    """Decoded images, the least recently used dropped beyond a number of bytes."""

    def __init__(self, capacity_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._capacity = capacity_bytes
        self._bytes = 0
        self._pictures: OrderedDict[int, Picture] = OrderedDict()

    def get(self, index: int, data: bytes) -> Picture:
        """Picture of row `index`, whose image bytes are `data`."""
        if index in self._pictures:
            self._pictures.move_to_end(index)
            return self._pictures[index]
        picture = decode_image(data)
        self._pictures[index] = picture
        self._bytes += picture.nbytes
        while self._bytes > self._capacity and len(self._pictures) > 1:
            self._bytes -= self._pictures.popitem(last=False)[1].nbytes
        return picture


def decode_image(data: bytes) -> Picture:
    """(H, W, 3) uint8 RGB of stored (already validated) image bytes; EXIF orientation is not applied."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
