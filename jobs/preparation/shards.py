"""Sharded Parquet, written row by row in bounded memory, the same bytes for the same rows."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

IMAGES_PER_SHARD = 1024
# A reader keeps one row group in memory; SA-1B images have half a megabyte.
IMAGES_PER_ROW_GROUP = 32
BYTES_PER_ROW_GROUP = 64 * 2**20


class ShardWriter:
    """Writes `shard-NNNNN.parquet` files; use as a context manager. first: the number of the first one."""

    def __init__(self, folder: Path, schema: pa.Schema, first: int = 0) -> None:
        self._folder = folder
        self._schema = schema
        self._first = first
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self._in_shard = self._waiting_bytes = 0
        self.shards = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._flush()
        self._close_shard()

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._waiting_bytes += len(row["image"])
        if len(self._rows) == IMAGES_PER_ROW_GROUP or self._waiting_bytes > BYTES_PER_ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._folder / f"shard-{self._first + self.shards:05d}.parquet",
                self._schema,
                # Images are compressed already; a run-length string shrinks by a third at no cost.
                compression="zstd",
                use_dictionary=["source", "split"],
                write_statistics=["image_id", "split"],
                # Readers notice a damaged page, where a flipped bit would be a wrong pixel.
                write_page_checksum=True,
            )
            self.shards += 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._in_shard += len(self._rows)
        self._rows, self._waiting_bytes = [], 0
        if self._in_shard >= IMAGES_PER_SHARD:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._in_shard = None, 0
