"""One part of a data set, an archive for example: prepared alone, and kept when a run is killed later."""

import hashlib
import shutil
from collections import Counter
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, Field

from data_contracts.schemas import QUARANTINE_SCHEMA
from jobs.preparation.contract_frame import Verdict, as_table, manifest_schema
from jobs.preparation.kind import Kind
from jobs.preparation.pictures import SampleTiles
from jobs.preparation.quarantine import rejections
from jobs.preparation.rows import split_of
from jobs.preparation.shards import ShardWriter
from jobs.preparation.tables import TableWriter

ACCEPTED_TILES = 12
QUARANTINED_TILES = 4  # of each rule
MANIFEST, QUARANTINE, TILES, SUMMARY = "manifest.parquet", "quarantine.parquet", "tiles", "summary.json"


class PartSummary(BaseModel):
    """What a part held. image_ids, row_ids, places (digest of the picture -> where it was met): for the parts
    after it to know."""

    rows_read: int = 0
    rows_accepted: int = 0
    images_read: int = 0
    images_accepted: int = 0
    masks_accepted: int = 0
    images_of_split: Counter[str] = Field(default_factory=Counter)
    shards: int = 0
    image_ids: list[str] = []
    row_ids: list[str] = []
    places: dict[str, tuple[str, str, bool]] = {}


class PartWriter:
    """Writes the files of one part into an empty folder; use as a context manager.

    first_shard: number of the part's first shard in the data set. The summary is complete on leaving.
    """

    def __init__(
        self, kind: Kind, folder: Path, first_shard: int, source: str, held_out_share: float
    ) -> None:
        self._kind = kind
        self._folder = folder
        self._source = source
        self._held_out_share = held_out_share
        self._shards = ShardWriter(folder, kind.schema, first_shard)
        self._manifest = TableWriter(folder / MANIFEST, manifest_schema(kind.columns))
        self._quarantine = TableWriter(folder / QUARANTINE, QUARANTINE_SCHEMA)
        self._accepted_tiles = SampleTiles(ACCEPTED_TILES)
        self._quarantined_tiles = SampleTiles(QUARANTINED_TILES)
        self._open = ExitStack()
        self.summary = PartSummary()

    def __enter__(self) -> "PartWriter":
        for writer in (self._shards, self._manifest, self._quarantine):
            self._open.enter_context(writer)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()
        self._accepted_tiles.save(self._folder / TILES / "accepted")
        self._quarantined_tiles.save(self._folder / TILES / "quarantined")
        self.summary.shards = self._shards.shards

    def add(self, verdicts: list[Verdict], accepted: pd.DataFrame) -> None:
        """Verdicts on all rows of some images, and the frame of their accepted masks."""
        self._manifest.add(as_table(accepted, self._kind.columns))
        if "area" in accepted:  # questions have no masks
            self.summary.masks_accepted += int(accepted["area"].notna().sum())
        for _, of_image in groupby(verdicts, lambda verdict: id(verdict.image)):
            self._add_image(list(of_image))

    def _add_image(self, verdicts: list[Verdict]) -> None:
        """Store the accepted rows of an image and quarantine the others."""
        accepted = [verdict for verdict in verdicts if verdict.rule is None]
        rejected = [verdict for verdict in verdicts if verdict.rule is not None]
        self.summary.rows_read += len(verdicts)
        self.summary.rows_accepted += len(accepted)
        if accepted:
            self._store(accepted)
        if rejected:
            self._quarantine.add(rejections(rejected, self._kind.row))
            for rule, of_rule in groupby(rejected, lambda verdict: verdict.rule and verdict.rule.name):
                self._quarantined_tiles.add(str(rule), [next(of_rule)])

    def _store(self, accepted: list[Verdict]) -> None:
        image, rows = accepted[0].image, [verdict.row for verdict in accepted]
        for row in self._kind.shard_rows(image, rows, self._source, self._held_out_share):
            self._shards.add(row)
        self.summary.images_accepted += 1
        self.summary.images_of_split.update({split_of(image, row, self._held_out_share) for row in rows})
        self._accepted_tiles.add("accepted", _shown(accepted))


def _shown(accepted: list[Verdict]) -> list[Verdict]:
    """All masks of an image on one tile, but of its records one, another place in each image."""
    if not accepted[0].row.raw.expressions:
        return accepted
    digest = hashlib.sha256(accepted[0].image.raw.image_id.encode()).digest()
    return [accepted[int.from_bytes(digest[:8], "big") % len(accepted)]]


class PartFolders:
    """The parts of a data set in a folder that survives a kill; a part is there as a whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}"

    def find(self, number: int) -> PartSummary | None:
        """Summary of a part that is done."""
        path = self.path(number) / SUMMARY
        return PartSummary.model_validate_json(path.read_text()) if path.exists() else None

    def begin(self, number: int) -> Path:
        """Empty folder for a part."""
        folder = self._unfinished(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def finish(self, number: int, summary: PartSummary) -> None:
        (self._unfinished(number) / SUMMARY).write_text(summary.model_dump_json())
        self._unfinished(number).rename(self.path(number))

    def _unfinished(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.unfinished"
