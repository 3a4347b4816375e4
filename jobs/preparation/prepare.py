"""What the three prepare stages share: read, measure, judge, store, quarantine, show, validate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jobs.formats.dataset import open_dataset
from jobs.formats.raw import RawDataset, RawImage
from jobs.formats.selection import WHOLE, Selection
from jobs.preparation.assembly import Assembled, assemble, write_page
from jobs.preparation.benchmark_images import BenchmarkImages
from jobs.preparation.contract_frame import Judge
from jobs.preparation.kind import Kind
from jobs.preparation.measuring import MeasuredImage, measure_image
from jobs.preparation.parallel import in_order, useful_threads
from jobs.preparation.part import PartFolders, PartSummary, PartWriter
from jobs.preparation.rows import split_of
from jobs.preparation.seen import DIGEST_CHARACTERS, Seen
from jobs.preparation.settings import PUBLISHED_FILES, ContractConfig, ImagesConfig
from jobs.preparation.statistics import write_statistics
from jobs.preparation.storing import with_stored_form
from jobs.runner.context import Check, StageContext, StageReport

IMAGES_AT_ONCE = 32
BYTES_AT_ONCE = 64 * 2**20


def prepare(
    kind: Kind,
    folder: Path,
    held_out_share: float,
    contract: ContractConfig,
    context: StageContext,
    selection: Selection = WHOLE,
    images: ImagesConfig = PUBLISHED_FILES,
    threads: int | None = None,
    benchmarks: BenchmarkImages | None = None,
) -> StageReport:
    """Prepare one acquired folder into `context.output`; Data Docs go to `context.work / "data_docs"`.

    held_out_share: of the images without a split of the publisher's. threads: None for as many as are
    useful; the result is the same for any number. benchmarks: images that no row for training may be of.
    Parts that a killed run has finished are taken over. Raises InputError where the folder cannot be read
    as a whole; a wrong row is quarantined instead.
    """
    dataset = open_dataset(folder, kind.formats, selection)
    judge = Judge(
        contract=kind.contract,
        seen=Seen(across_images=kind.rows_unique_across_images),
        split_of=partial(split_of, held_out_share=held_out_share),
        splits_share_no_image=dataset.splits_share_no_image,
        benchmarks=benchmarks or BenchmarkImages(),
    )
    preparation = _Preparation(
        kind=kind,
        judge=judge,
        source=context.partition or folder.name,
        held_out_share=held_out_share,
        contract=contract,
        images=images,
        context=context,
        threads=threads or useful_threads(),
    )
    preparation.read(dataset)
    return preparation.report(dataset)


@dataclass(kw_only=True)
class _Preparation:
    kind: Kind
    judge: Judge
    source: str
    held_out_share: float
    contract: ContractConfig
    images: ImagesConfig
    context: StageContext
    threads: int
    summaries: list[PartSummary] = field(default_factory=list)

    @cached_property
    def parts(self) -> PartFolders:
        return PartFolders(self.context.work / "parts")

    def read(self, dataset: RawDataset) -> None:
        """Read, judge and write every part that is not done yet."""
        with self.context.progress(dataset.count, "Preparing", "image") as bar:
            for number, images in enumerate(dataset.parts):
                summary = self.parts.find(number)
                if summary is None:
                    summary = self._prepare_part(number, images, bar.update)
                    self.parts.finish(number, summary)
                else:
                    self.judge.seen.restore(summary.image_ids, summary.row_ids, summary.places)
                    bar.update(summary.images_read)
                self.summaries.append(summary)

    def _prepare_part(self, number: int, images: Iterable[RawImage], count: Any) -> PartSummary:
        first_shard = sum(summary.shards for summary in self.summaries)
        folder = self.parts.begin(number)
        with PartWriter(self.kind, folder, first_shard, self.source, self.held_out_share) as writer:
            for measured in _together(in_order(self._measure, images, self.threads)):
                verdicts, accepted = self.judge.verdicts(measured)
                writer.add(verdicts, accepted)
                writer.summary.images_read += len(measured)
                writer.summary.image_ids += [image.raw.image_id for image in measured]
                self._note_places(measured, writer.summary)
                if self.kind.rows_unique_across_images:
                    writer.summary.row_ids += [row.raw.row_id for image in measured for row in image.rows]
                count(len(measured))
        return writer.summary

    def _measure(self, raw: RawImage) -> MeasuredImage:
        image = measure_image(raw, self.kind.contract.convention, self.contract.max_image_pixels)
        return with_stored_form(image, self.images).without_useless_bytes()

    def _note_places(self, images: Iterable[MeasuredImage], summary: PartSummary) -> None:
        """As Seen does: a picture is where it was met first."""
        for image in images:
            if image.problem is None and image.rows:
                summary.places.setdefault(image.sha256[:DIGEST_CHARACTERS], self.judge.place(image))

    def report(self, dataset: RawDataset) -> StageReport:
        """Put the parts together in the output, and say what they hold."""
        folders = [self.parts.path(number) for number in range(len(self.summaries))]
        result = assemble(self.kind, folders, self.summaries, self.context.output)
        write_statistics(result.manifest)
        checks = self._checks(result)
        write_page(self.kind, result, self.context.stage, self.source, checks[0])
        figures: dict[str, Any] = {
            "rows_of_other_splits": dataset.rows_of_other_splits,
            "rows_read": result.total.rows_read,
            "rows_accepted": result.total.rows_accepted,
            "rows_quarantined": result.rejections.rows,
            "quarantined_share": round(result.quarantined_share, 6),
            "images_read": result.total.images_read,
            "images_accepted": result.total.images_accepted,
            "masks_accepted": result.total.masks_accepted,
        }
        figures |= {f"images_{split}": n for split, n in sorted(result.total.images_of_split.items())}
        figures |= {f"quarantined_{rule}": n for rule, n in sorted(result.rejections.rows_of_rule.items())}
        return StageReport(figures=figures, checks=checks)

    def _checks(self, result: Assembled) -> tuple[Check, ...]:
        # Great Expectations takes ten seconds to import.
        from jobs.preparation.checks import contract_check, expectations_check, warnings_check
        from jobs.preparation.validation import validate_manifest

        contract, data_docs = self.kind.contract, self.context.work / "data_docs"
        outcome = validate_manifest(contract, result.manifest, result.quarantine, data_docs)
        return (
            contract_check(contract, result, self.contract),
            warnings_check(contract, outcome.warnings, result.total.rows_accepted, self.contract),
            expectations_check(outcome),
        )


def _together(images: Iterator[MeasuredImage]) -> Iterator[list[MeasuredImage]]:
    """Images in lists, as long as memory for their files allows."""
    waiting: list[MeasuredImage] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == IMAGES_AT_ONCE or sum(len(one.raw.data) for one in waiting) > BYTES_AT_ONCE:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
