"""Distributions of a manifest's columns, counted a few rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

BINS = 30


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """counts (B,) of the values between edges (B + 1,); logarithmic: whether edges are equally far apart in log."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    logarithmic: bool


def column_histogram(manifest: Path, column: str) -> Histogram | None:
    """Histogram of the values that are there, None where there are none.

    Values of more than two orders of magnitude get bins of equal ratio, which leave out those not above 0.
    """
    least, most, least_positive = np.inf, -np.inf, np.inf
    for values in column_values(manifest, column):
        least, most = min(least, values.min()), max(most, values.max())
        least_positive = min(least_positive, values[values > 0].min(initial=np.inf))
    if least > most:
        return None
    logarithmic = bool(most > 100 * least_positive)
    edges = np.geomspace(least_positive, most, BINS + 1) if logarithmic else _even_edges(least, most)
    counts = np.zeros(BINS, np.int64)
    for values in column_values(manifest, column):
        counts += np.histogram(values, edges)[0]
    return Histogram(counts=counts, edges=edges, logarithmic=logarithmic)


def column_values(manifest: Path, column: str) -> Iterator[NDArray[np.float64]]:
    """Values of a number column without the missing ones, in pieces that hold at least one."""
    with pq.ParquetFile(manifest) as file:
        for batch in file.iter_batches(columns=[column]):
            values = batch.column(0).drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
            if len(values):
                yield values


def _even_edges(least: float, most: float) -> NDArray[np.float64]:
    return (
        np.linspace(least, most, BINS + 1)
        if most > least
        else np.linspace(least - 0.5, least + 0.5, BINS + 1)
    )
