"""What differs between data sets of masks and of referring records."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from data_contracts.rules import Contract
from jobs.formats.dataset import Open
from jobs.preparation.measuring import MeasuredImage, MeasuredRow
from jobs.preparation.rows import Row

# Column of the manifest, title of its histogram.
MASK_PANELS = (("area", "area (pixels)"), ("boundary_length", "boundary (pixels)"))


@dataclass(frozen=True, kw_only=True)
class Kind:
    """row: what a row is called in the quarantine. formats: the readers by the name in `dataset.json`.
    shard_rows: image, its accepted rows, source and held-out share -> rows of `schema`."""

    row: str
    schema: pa.Schema
    contract: Contract
    formats: Mapping[str, Open]
    rows_unique_across_images: bool
    shard_rows: Callable[[MeasuredImage, list[MeasuredRow], str, float], list[Row]]
    panels: tuple[tuple[str, str], ...]

    @property
    def columns(self) -> Mapping[str, str]:
        """Of the manifest: name -> kind."""
        return self.contract.columns
