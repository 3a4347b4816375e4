"""Distributions of what a manifest holds, counted a few rows at a time."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
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


@dataclass(frozen=True, kw_only=True)
class ManifestCounts:
    """How many images have so many masks, or so long a longer side (pixels); how many masks are of a category."""

    masks_per_image: Counter[int] = field(default_factory=Counter)
    longer_sides: Counter[int] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)


def count_manifest(manifest: Path) -> ManifestCounts:
    """Counts over all rows; the rows of an image lie together. Rows without `mask_id` count as one mask each."""
    counts = ManifestCounts()
    last = pd.DataFrame()
    with pq.ParquetFile(manifest) as file:
        known = file.schema_arrow.names
        columns = [name for name in ("image_id", "width", "height", "mask_id", "category") if name in known]
        for batch in file.iter_batches(columns=columns):
            rows = batch.to_pandas()
            if "category" in rows:
                counts.categories.update(rows["category"].value_counts().to_dict())
            masks = (rows["mask_id"] != "").astype(int) if "mask_id" in rows else 1
            sides = rows[["width", "height"]].max(axis=1)
            images = pd.DataFrame({"id": rows["image_id"], "masks": masks, "side": sides})
            images = pd.concat([last, images]).groupby("id", sort=False, as_index=False)
            images = images.agg({"masks": "sum", "side": "first"})
            # The last image may go on in the next batch.
            last = images.tail(1)
            _count_images(counts, images.head(-1))
    _count_images(counts, last)
    return counts


def _count_images(counts: ManifestCounts, images: pd.DataFrame) -> None:
    if len(images):
        counts.masks_per_image.update(images["masks"].astype(int).tolist())
        counts.longer_sides.update(images["side"].astype(int).tolist())


def counted_histogram(counts: Counter[int]) -> Histogram | None:
    """Histogram of whole numbers that were counted; bins of one number each where there is room."""
    if not counts:
        return None
    values, weights = np.array(sorted(counts)), np.array([counts[value] for value in sorted(counts)])
    span = int(values[-1] - values[0]) + 1
    edges = np.linspace(values[0] - 0.5, values[-1] + 0.5, min(span, BINS) + 1)
    return Histogram(counts=np.histogram(values, edges, weights=weights)[0], edges=edges, logarithmic=False)
