"""Puts the prepared parts of a data set together as its output folder."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_contracts.schemas import QUARANTINE_SCHEMA
from jobs.preparation.contract_frame import manifest_schema
from jobs.preparation.kind import Kind
from jobs.preparation.part import (
    ACCEPTED_TILES,
    MANIFEST,
    QUARANTINE,
    QUARANTINED_TILES,
    TILES,
    PartSummary,
)
from jobs.preparation.pictures import SampleTiles, plot_distributions
from jobs.preparation.quarantine import Rejections, read_rejections
from jobs.preparation.tables import join_files


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """total: sums over the parts, without ids."""

    manifest: Path
    total: PartSummary
    rejections: Rejections

    @property
    def quarantined_share(self) -> float:
        """Of the rows read."""
        return self.rejections.rows / self.total.rows_read if self.total.rows_read else 0.0


def assemble(kind: Kind, parts: Sequence[Path], summaries: Sequence[PartSummary], output: Path) -> Assembled:
    """Fill `output` from the folders of the parts, which stay as they are."""
    for part in parts:
        for shard in sorted(part.glob("shard-*.parquet")):
            _link_or_copy(shard, output / shard.name)
    manifest, quarantine = output / MANIFEST, output / QUARANTINE
    join_files([part / MANIFEST for part in parts], manifest, manifest_schema(kind.columns))
    join_files([part / QUARANTINE for part in parts], quarantine, QUARANTINE_SCHEMA)
    result = Assembled(manifest=manifest, total=_total(summaries), rejections=read_rejections(quarantine))
    _draw(kind, parts, result, output / "pictures")
    return result


def _link_or_copy(source: Path, target: Path) -> None:
    """A second name where the file system can give one: the source belongs to a killed run's state only."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _total(summaries: Sequence[PartSummary]) -> PartSummary:
    total = PartSummary()
    for summary in summaries:
        total.rows_read += summary.rows_read
        total.rows_accepted += summary.rows_accepted
        total.images_read += summary.images_read
        total.images_accepted += summary.images_accepted
        total.masks_accepted += summary.masks_accepted
        total.images_of_split.update(summary.images_of_split)
    return total


def _draw(kind: Kind, parts: Sequence[Path], result: Assembled, folder: Path) -> None:
    folder.mkdir()
    accepted, quarantined = SampleTiles(ACCEPTED_TILES), SampleTiles(QUARANTINED_TILES)
    for part in parts:
        accepted.read(part / TILES / "accepted")
        quarantined.read(part / TILES / "quarantined")
    accepted.save_sheet(folder / "accepted.png")
    quarantined.save_sheet(folder / "quarantined.png")
    if result.total.rows_accepted:
        plot_distributions(result.manifest, kind.panels, folder / "distributions.png")
