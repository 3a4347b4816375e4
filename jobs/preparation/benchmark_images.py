"""The images of the prepared benchmarks, which no training set may contain."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

COLUMNS = ["image_id", "image_numbering", "image_sha256"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkImages:
    """of_id: (numbering, image id) -> benchmark; of_sha256: hash of the published bytes -> benchmark."""

    of_id: dict[tuple[str, str], str] = field(default_factory=dict)
    of_sha256: dict[str, str] = field(default_factory=dict)

    def find(self, image_id: str, numbering: str | None, sha256: str) -> str | None:
        """Which benchmark has the image, and how that is known; None where none has."""
        if numbering is not None and (numbering, image_id) in self.of_id:
            return f"image {image_id} is in {self.of_id[numbering, image_id]} ({numbering} id)"
        if sha256 in self.of_sha256:
            return f"image {image_id} is in {self.of_sha256[sha256]} (same bytes)"
        return None


def read_benchmark_images(folder: Path) -> BenchmarkImages:
    """Images of every benchmark below the output folder of `prepare_benchmark`.

    Only ids and hashes are read, so memory grows by some hundred bytes an image.
    """
    images = BenchmarkImages()
    for path in sorted(folder.rglob("shard-*.parquet")):
        benchmark = path.relative_to(folder).parts[0]
        for image_id, numbering, sha256 in _rows(path):
            if numbering is not None:
                images.of_id.setdefault((numbering, image_id), benchmark)
            images.of_sha256.setdefault(sha256, benchmark)
    return images


def _rows(path: Path) -> Iterator[tuple[str, str | None, str]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=COLUMNS):
            yield from zip(*(batch.column(name).to_pylist() for name in COLUMNS), strict=True)
