"""Rows of prepared shards: which ones are used, and their row groups, read when they are needed."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from alto_models.data.storage import ShardFolder, require_schema
from data_contracts.errors import InputError

INDEX_THREADS = 8
READING_THREADS = 2
DEFAULT_CACHE_BYTES = 256 * 2**20


class GroupName(NamedTuple):
    """A row group: its shard, and which of the shard's groups it is."""

    shard: str
    number: int


class Least(NamedTuple):
    """A column, the number its value has to exceed, and the parameter that sets the number."""

    column: str
    number: float
    parameter: str


@dataclass(frozen=True, kw_only=True)
class RowIndex:
    """The used rows of a folder in file order: N rows of G row groups, each with at least one.

    rows (N,): place of each within its group. starts (G + 1,): first of `rows` of each group.
    """

    folder: ShardFolder
    groups: tuple[GroupName, ...]
    rows: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def group_sizes(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def group_of(self, index: int) -> tuple[int, int]:
        """Row group of the used row of that number, and its place in the group."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return int(np.searchsorted(self.starts, index, side="right")) - 1, int(self.rows[index])

    def read_from(self, copy: Path | str) -> "RowIndex":
        """The same rows of a copy of the folder. Raises InputError unless it has shards of the same names and sizes."""
        folder = ShardFolder(copy)
        folder.require_copy_of(self.folder)
        return replace(self, folder=folder)

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all used rows."""
        parts: list[pa.Table] = []
        for shard, numbers in groupby(range(len(self.groups)), key=lambda group: self.groups[group].shard):
            with self.folder.open(shard) as file:
                for group in numbers:
                    rows = file.read_row_group(self.groups[group].number, columns=columns, use_threads=False)
                    parts.append(rows.take(self.rows[self.starts[group] : self.starts[group + 1]]))
        return pa.concat_tables(parts).combine_chunks()

    @classmethod
    def read(
        cls, folder: Path | str, schema: pa.Schema, split: str | None, least: Least | None = None
    ) -> "RowIndex":
        """Index of the rows of a split (None: of all) that `least` allows; nothing but these columns is read.

        Raises InputError where there are no shards, no such rows, or another schema.
        """
        place = ShardFolder(folder)
        shards = place.shards()
        with ThreadPoolExecutor(INDEX_THREADS) as pool:
            read = partial(_used_rows, place, schema, split, least)
            of_shards = list(pool.map(read, shards))
        found = [
            (GroupName(shard, number), rows)
            for shard, groups in zip(shards, of_shards, strict=True)
            for number, rows in enumerate(groups)
            if len(rows)
        ]
        if not found:
            limit = ""
            if least is not None:
                limit = f" with {least.column} above {least.number:g}: lower {least.parameter}"
            raise InputError(f"{place.name}: no image of split {split!r}{limit}")
        used = [rows for _, rows in found]
        return cls(
            folder=place,
            groups=tuple(name for name, _ in found),
            rows=np.concatenate(used),
            starts=np.concatenate([[0], np.cumsum([len(rows) for rows in used])]),
        )


def _used_rows(
    folder: ShardFolder,
    schema: pa.Schema,
    split: str | None,
    least: Least | None,
    shard: str,
) -> list[NDArray[np.int32]]:
    """Places of the used rows within each row group of a shard."""
    with folder.open(shard) as file:
        require_schema(file, schema, f"{folder.name}/{shard}")
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        columns = ["split"] if least is None else ["split", least.column]
        table = file.read(columns=columns, use_threads=False)
    used = np.ones(len(table), np.bool_)
    if split is not None:
        used &= pc.equal(table["split"], split).to_numpy()
    if least is not None:
        used &= table[least.column].to_numpy() > least.number
    parts = np.split(used, np.cumsum(sizes)[:-1]) if sizes else []
    return [np.flatnonzero(part).astype(np.int32) for part in parts]


class RowGroups:
    """Row groups of an index as tables, read in the background. May be asked by several threads.

    columns: of the tables. Groups that somebody holds are kept; others while there is room (capacity in bytes).
    """

    def __init__(
        self, index: RowIndex, columns: Sequence[str], capacity_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        self._index = index
        self.column_names = list(columns)
        self._capacity = capacity_bytes
        self._tables: OrderedDict[int, Future[pa.Table]] = OrderedDict()
        self._held: dict[Hashable, Sequence[int]] = {}
        self._grown = False
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(READING_THREADS)

    def get(self, group: int) -> pa.Table:
        """All rows of a group; waits for it. Raises InputError naming the shard."""
        with self._lock:
            reading = self._request(group)
        try:
            table: pa.Table = reading.result()
        except InputError:
            with self._lock:
                self._tables.pop(group, None)
            raise
        with self._lock:
            if self._grown:
                self._make_room(group)
        return table

    def hold(self, owner: Hashable, groups: Sequence[int]) -> None:
        """Begin to read groups, and keep them until the owner holds others."""
        with self._lock:
            self._held[owner] = groups
            for group in groups:
                self._request(group)

    def _request(self, group: int) -> Future[pa.Table]:
        if group not in self._tables:
            self._tables[group] = self._pool.submit(self._read, group)
            self._grown = True
        self._tables.move_to_end(group)
        return self._tables[group]

    def _make_room(self, latest: int) -> None:
        """Drop the groups that were asked for least recently, as long as those that nobody holds take too much."""
        kept = {latest, *(group for groups in self._held.values() for group in groups)}
        loose = {group: _bytes(self._tables[group]) for group in self._tables if group not in kept}
        filled = sum(loose.values())
        for group, size in loose.items():
            if filled <= self._capacity:
                break
            filled -= size
            del self._tables[group]
        self._grown = not all(reading.done() for reading in self._tables.values())

    def _read(self, group: int) -> pa.Table:
        shard, number = self._index.groups[group]
        with self._index.folder.open(shard) as file:
            return file.read_row_group(number, columns=self.column_names, use_threads=False)


def _bytes(reading: Future[pa.Table]) -> int:
    """Of a table that has been read."""
    return reading.result().nbytes if reading.done() and not reading.exception() else 0
