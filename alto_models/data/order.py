"""In which order training sees its samples: pure arithmetic, so that no state has to be kept or restored.

The sample at a position depends on the position, the seed and the samples of a global step (L, "lanes"), never on how
many processes or reading workers there are. In each epoch the row groups are shuffled and laid end to end; the
sequence is cut into L stretches, one a lane; and each lane gives every L-th sample of the epoch, shuffled within a
window of its stretch. So whoever takes some places of a step needs a window of rows for each of them and no others,
and reads every row group once an epoch.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Rows of a lane that are shuffled with one another, and kept in memory: two or three row groups.
WINDOW_ROWS = 64


class Window(NamedTuple):
    """Some successive samples of a lane in an epoch."""

    epoch: int
    lane: int
    number: int


class Place(NamedTuple):
    """Where a sample is: row group, and which of the group's used rows."""

    group: int
    row: int


class _Epoch(NamedTuple):
    """Row groups in the order of an epoch, and where each begins in the sequence of all rows: (G,), (G + 1,)."""

    groups: NDArray[np.int64]
    starts: NDArray[np.int64]


class SampleOrder:
    """Endless order of samples; every one occurs once in each epoch of `len(self)` positions.

    group_sizes: used rows of each row group, none of them 0. lanes: samples of a step, over all processes.
    """

    def __init__(
        self,
        group_sizes: Sequence[int] | NDArray[np.int64],
        lanes: int,
        seed: int,
        window_rows: int = WINDOW_ROWS,
    ) -> None:
        self._sizes = np.asarray(group_sizes, np.int64)
        self._lanes = lanes
        self._seed = seed
        self._window_rows = window_rows
        self._rows = int(self._sizes.sum())
        self._epoch = lru_cache(maxsize=2)(self._shuffled_groups)
        self._shuffled = lru_cache(maxsize=4 * lanes)(self._shuffled_rows)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self._rows

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleOrder, (self._sizes, self._lanes, self._seed, self._window_rows)

    def window(self, position: int) -> Window:
        """The window that the sample at a position is drawn from."""
        return self._locate(position)[0]

    def at(self, position: int) -> Place:
        window, place = self._locate(position)
        first, _ = self._bounds(window)
        slot = first + int(self._shuffled(window)[place])
        epoch = self._epoch(window.epoch)
        nth = int(np.searchsorted(epoch.starts, slot, side="right")) - 1
        return Place(int(epoch.groups[nth]), slot - int(epoch.starts[nth]))

    def groups(self, window: Window) -> list[int]:
        """Row groups that the samples of a window lie in."""
        first, stop = self._bounds(window)
        epoch = self._epoch(window.epoch)
        nth_first = int(np.searchsorted(epoch.starts, first, side="right")) - 1
        nth_stop = int(np.searchsorted(epoch.starts, stop, side="left"))
        return epoch.groups[nth_first:nth_stop].tolist()

    def _locate(self, position: int) -> tuple[Window, int]:
        """Window of a position, and which of the window's samples it is."""
        epoch, index = divmod(position, self._rows)
        turn, lane = divmod(index, self._lanes)
        shift = self._shift(lane)
        number, place = divmod(turn + shift, self._window_rows)
        return Window(epoch, lane, number), place if number else place - shift

    def _shift(self, lane: int) -> int:
        """By how much the first window of a lane is shorter, so that lanes do not all begin a window at once."""
        return lane * self._window_rows // self._lanes

    def _bounds(self, window: Window) -> tuple[int, int]:
        """First row and stop of a window in the sequence of all rows of its epoch."""
        size, longer = divmod(self._rows, self._lanes)
        start = window.lane * size + min(window.lane, longer)
        length = size + (window.lane < longer)
        first = window.number * self._window_rows - self._shift(window.lane)
        return start + max(first, 0), start + min(first + self._window_rows, length)

    def _shuffled_groups(self, epoch: int) -> _Epoch:
        groups = np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._sizes))
        return _Epoch(groups, np.concatenate([[0], np.cumsum(self._sizes[groups])]))

    def _shuffled_rows(self, window: Window) -> NDArray[np.int64]:
        first, stop = self._bounds(window)
        return np.random.default_rng([self._seed, 2, *window]).permutation(stop - first)
