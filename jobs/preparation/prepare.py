"""What the three prepare stages share: read, measure, judge, store, quarantine, show, validate."""

from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from jobs.formats.dataset import open_dataset
from jobs.formats.selection import WHOLE, Selection
from jobs.preparation.contract_frame import Seen, Verdict, as_frame, as_table, judge
from jobs.preparation.kind import Kind
from jobs.preparation.measuring import MeasuredImage, MeasuredRow, measure_image
from jobs.preparation.pictures import SampleSheet, plot_distributions
from jobs.preparation.quarantine import Quarantine
from jobs.preparation.rows import split_of
from jobs.preparation.settings import ContractConfig
from jobs.preparation.shards import ShardWriter
from jobs.runner.context import Check, StageContext, StageReport

IMAGES_AT_ONCE = 32


def prepare(
    kind: Kind,
    folder: Path,
    held_out_share: float,
    contract: ContractConfig,
    context: StageContext,
    selection: Selection = WHOLE,
) -> StageReport:
    """Prepare one acquired folder into `context.output`; Data Docs go to `context.work / "data_docs"`.

    held_out_share: of the images without a split of the publisher's. Raises InputError where the folder
    cannot be read as a whole; a wrong row is quarantined instead.
    """
    preparation = _Preparation(kind, folder, held_out_share, contract, context, selection)
    preparation.read()
    preparation.store()
    return preparation.report()


class _Preparation:
    def __init__(
        self,
        kind: Kind,
        folder: Path,
        held_out_share: float,
        contract: ContractConfig,
        context: StageContext,
        selection: Selection,
    ) -> None:
        self.kind = kind
        self.folder = folder
        self.held_out_share = held_out_share
        self.contract = contract
        self.context = context
        self.selection = selection
        self.frames: list[pd.DataFrame] = []
        self.quarantine = Quarantine(kind.row)
        self.accepted_sheet, self.quarantined_sheet = SampleSheet(), SampleSheet()
        self.rows_read = self.images_read = self.images_accepted = self.rows_accepted = 0

    def read(self) -> None:
        """Read, judge and write everything, some images at a time."""
        dataset = open_dataset(self.folder, self.kind.formats, self.selection)
        self.rows_of_other_splits = dataset.rows_of_other_splits
        seen = Seen(across_images=self.kind.rows_unique_across_images)
        convention, most = self.kind.convention, self.contract.max_image_pixels
        measured = (measure_image(raw, convention, most) for raw in dataset.images)
        with (
            ShardWriter(self.context.output, self.kind.schema) as shards,
            self.context.progress(dataset.count, "Preparing", "image") as bar,
        ):
            while images := list(islice(measured, IMAGES_AT_ONCE)):
                verdicts, accepted = judge(
                    images, self.kind.contract, self.kind.columns, seen, self._split_of
                )
                self.frames.append(accepted)
                self.images_read += len(images)
                for _, of_image in groupby(verdicts, lambda verdict: id(verdict.image)):
                    self._keep(list(of_image), shards)
                bar.update(len(images))

    def _split_of(self, image: MeasuredImage, row: MeasuredRow) -> str:
        return split_of(image, row, self.held_out_share)

    def _keep(self, verdicts: list[Verdict], shards: ShardWriter) -> None:
        """Store the accepted rows of an image and quarantine the others."""
        accepted = [verdict for verdict in verdicts if verdict.rule is None]
        rejected = [verdict for verdict in verdicts if verdict.rule is not None]
        self.rows_read += len(verdicts)
        self.rows_accepted += len(accepted)
        self.quarantine.add(rejected)
        if accepted:
            image = accepted[0].image
            source = self.context.partition or self.folder.name
            rows = [verdict.row for verdict in accepted]
            for row in self.kind.shard_rows(image, rows, source, self.held_out_share):
                shards.add(row)
            self.accepted_sheet.add(self._shown(accepted))
            self.images_accepted += 1
        if rejected:
            self.quarantined_sheet.add(rejected[:1])

    def _shown(self, accepted: list[Verdict]) -> list[Verdict]:
        """All masks of an image on one tile, but of its records one, another place in each image."""
        if accepted[0].row.raw.expressions:
            return [accepted[self.images_accepted % len(accepted)]]
        return accepted

    def store(self) -> None:
        """Write manifest, quarantine and pictures beside the shards."""
        output = self.context.output
        self.manifest = pd.concat(self.frames) if self.frames else as_frame([], self.kind.columns)
        pq.write_table(
            as_table(self.manifest, self.kind.columns), output / "manifest.parquet", compression="zstd"
        )
        self.quarantine.write(output / "quarantine.parquet")
        pictures = output / "pictures"
        pictures.mkdir()
        self.accepted_sheet.save(pictures / "accepted.png")
        self.quarantined_sheet.save(pictures / "quarantined.png")
        if len(self.manifest):
            plot_distributions(self.manifest, self.kind.panels, pictures / "distributions.png")

    def report(self) -> StageReport:
        figures: dict[str, Any] = {
            "rows_of_other_splits": self.rows_of_other_splits,
            "rows_read": self.rows_read,
            "rows_accepted": self.rows_accepted,
            "rows_quarantined": self.quarantine.rows,
            "quarantined_share": round(self._quarantined_share(), 6),
            "images_read": self.images_read,
            "images_accepted": self.images_accepted,
            "masks_accepted": int(self.manifest["area"].notna().sum()),
        }
        images_of_split = self.manifest.groupby("split")["image_id"].nunique()
        figures |= {f"images_{split}": int(count) for split, count in images_of_split.items()}
        figures |= {f"quarantined_{rule}": n for rule, n in sorted(self.quarantine.rows_of_rule.items())}
        return StageReport(figures=figures, checks=(self._contract_check(), self._expectations_check()))

    def _quarantined_share(self) -> float:
        return self.quarantine.rows / self.rows_read if self.rows_read else 0.0

    def _contract_check(self) -> Check:
        share, limit = self._quarantined_share(), self.contract.max_quarantined_share
        counts = ", ".join(f"{rule} {n}" for rule, n in sorted(self.quarantine.rows_of_rule.items()))
        reason = (
            f"{self.quarantine.rows} of {self.rows_read} rows quarantined ({share:.2%}, limit {limit:.2%})"
        )
        passed = share <= limit
        if not self.rows_accepted:
            reason, passed = f"no row was accepted; {reason}", False
        return Check(
            name="contract",
            passed=passed,
            blocking=True,
            reason=f"{reason}: {counts}" if counts else reason,
            details={"rows": dict(self.quarantine.rows_of_rule), "examples": self.quarantine.examples()},
        )

    def _expectations_check(self) -> Check:
        # Great Expectations takes ten seconds to import.
        from data_contracts.expectations import validate

        result = validate(self.kind.contract, self.manifest, self.context.work / "data_docs")
        failed = ", ".join(f"{rule} ({count})" for rule, count in result.failed.items())
        return Check(
            name="expectations",
            passed=not result.failed,
            blocking=True,
            reason=f"accepted rows break {failed}" if failed else f"{result.expectations} expectations hold",
            details=result.failed,
        )
