"""Puts the prepared parts of a data set together as its output folder."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.schemas import QUARANTINE_SCHEMA
from jobs.partition_page.page import BrokenRule, PartitionPage, manifest_plots
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
from jobs.runner.context import Check

PAGE = "page.html"


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """total: sums over the parts, without ids. accepted, quarantined: samples."""

    manifest: Path
    quarantine: Path
    total: PartSummary
    rejections: Rejections
    accepted: SampleTiles = field(default_factory=lambda: SampleTiles(ACCEPTED_TILES))
    quarantined: SampleTiles = field(default_factory=lambda: SampleTiles(QUARANTINED_TILES))

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
    result = Assembled(
        manifest=manifest,
        quarantine=quarantine,
        total=_total(summaries),
        rejections=read_rejections(quarantine),
    )
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
    """Pictures beside the shards; `result` gets its tiles."""
    folder.mkdir()
    for part in parts:
        result.accepted.read(part / TILES / "accepted")
        result.quarantined.read(part / TILES / "quarantined")
    result.accepted.save_sheet(folder / "accepted.png")
    result.quarantined.save_sheet(folder / "quarantined.png")
    if result.total.rows_accepted:
        plot_distributions(result.manifest, kind.panels, folder / "distributions.png")


def write_page(kind: Kind, result: Assembled, stage: str, partition: str, contract: Check) -> None:
    """`page.html` beside the manifest. contract: the verdict it opens with."""
    found, tiles = result.rejections, result.quarantined.groups()
    broken = [
        BrokenRule(
            name=rule,
            rows=rows,
            reason=found.reasons[rule],
            examples=found.examples[rule],
            tiles=tiles.get(rule, []),
        )
        for rule, rows in sorted(found.rows_of_rule.items(), key=lambda item: (-item[1], item[0]))
    ]
    total, has_masks = result.total, "mask_id" in kind.columns
    figures = {
        f"{kind.row}s read": total.rows_read,
        f"{kind.row}s accepted": total.rows_accepted,
        f"{kind.row}s quarantined": found.rows,
        "images read": total.images_read,
        "images accepted": total.images_accepted,
    }
    if has_masks:
        figures["masks accepted"] = total.masks_accepted
    page = PartitionPage(
        stage=stage,
        partition=partition,
        verdict=contract.reason,
        passed=contract.passed,
        rows_read=total.rows_read,
        figures=figures,
        images_of_split=dict(sorted(total.images_of_split.items())),
        broken=broken,
        accepted=result.accepted.groups().get("accepted", []),
        plots=manifest_plots(result.manifest, kind.panels, "masks" if has_masks else f"{kind.row}s"),
    )
    (result.manifest.parent / PAGE).write_text(page.render(), encoding="utf-8")
