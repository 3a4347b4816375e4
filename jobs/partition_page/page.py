"""Fills the page's template; the result is the same byte for byte for the same partition."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from jobs.pages.figures import Plot
from jobs.pages.template import page_environment
from jobs.partition_page.histograms import column_histogram, count_manifest, counted_histogram
from jobs.partition_page.plots import categories, distribution

TILE_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class BrokenRule:
    """rows: quarantined for it; reason: why the rule exists; examples: the first ids and values."""

    name: str
    rows: int
    reason: str
    examples: Sequence[str]
    tiles: Sequence[Image.Image]


@dataclass(frozen=True, kw_only=True)
class PartitionPage:
    """verdict, passed: of the contract; figures: name -> number, in their order; accepted: sample tiles."""

    stage: str
    partition: str
    verdict: str
    passed: bool
    rows_read: int
    figures: Mapping[str, int]
    images_of_split: Mapping[str, int]
    broken: Sequence[BrokenRule]
    accepted: Sequence[Image.Image]
    plots: Sequence[Plot]

    def render(self) -> str:
        environment = page_environment("jobs.partition_page")
        environment.filters |= {"jpeg": _jpeg, "thousands": lambda count: f"{count:,}"}
        return environment.get_template("page.html.j2").render(page=self)


def manifest_plots(manifest: Path, panels: Sequence[tuple[str, str]], unit: str) -> list[Plot]:
    """Distributions of a manifest. panels: (column, title) of number columns; unit: what its rows are."""
    counts = count_manifest(manifest)
    found = [(column_histogram(manifest, column), title, unit) for column, title in panels]
    found.append((counted_histogram(counts.masks_per_image), f"{unit} of an image", "images"))
    found.append((counted_histogram(counts.longer_sides), "longer side (pixels)", "images"))
    plots = [distribution(histogram, title, unit) for histogram, title, unit in found if histogram]
    return [*plots, categories(counts.categories, unit)] if counts.categories else plots


def _jpeg(tile: Image.Image) -> bytes:
    file = io.BytesIO()
    tile.save(file, "JPEG", quality=TILE_QUALITY)
    return file.getvalue()
