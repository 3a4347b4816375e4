"""Measured rows as the frame a contract is checked on, and the verdict on each row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from data_contracts.rules import Contract, Rule
from jobs.formats.raw import Problem, RawRow, visible
from jobs.preparation.benchmark_images import BenchmarkImages
from jobs.preparation.measuring import MeasuredImage, MeasuredMask, MeasuredRow
from jobs.preparation.rows import TRAINING_SPLIT

ARROW_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
SplitOf = Callable[[MeasuredImage, MeasuredRow], str]
PROBLEM_COLUMNS = ("problem_rule", "problem")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """rule: the first rule the row breaks, None where it is accepted; value: what broke it."""

    image: MeasuredImage
    row: MeasuredRow
    rule: Rule | None
    value: str


class Seen:
    """Ids met so far.

    across_images: whether a row id must be unique in the whole data set, not only in its image.
    """

    def __init__(self, across_images: bool) -> None:
        self._across_images = across_images
        self._images: set[str] = set()
        self._rows: set[str] = set()

    def image(self, image_id: str) -> bool:
        """Whether the image came before."""
        again = image_id in self._images
        self._images.add(image_id)
        if not self._across_images:
            self._rows.clear()
        return again

    def restore(self, image_ids: Iterable[str], row_ids: Iterable[str]) -> None:
        """Take over ids that an earlier run has met."""
        self._images.update(image_ids)
        self._rows.update(row_ids)

    def row(self, row: MeasuredRow) -> bool:
        """Whether the row came before, or holds a mask twice."""
        again = row.raw.row_id in self._rows
        self._rows.add(row.raw.row_id)
        mask_ids = [mask.raw.mask_id for mask in row.masks]
        return again or len(set(mask_ids)) < len(mask_ids)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Holds rows against a contract; `seen` remembers what came before, so images are judged in reading order.

    columns: name -> kind, as data_contracts declares them.
    """

    contract: Contract
    columns: Mapping[str, str]
    seen: Seen
    split_of: SplitOf
    benchmarks: BenchmarkImages = field(default_factory=BenchmarkImages)

    def verdicts(self, images: Sequence[MeasuredImage]) -> tuple[list[Verdict], pd.DataFrame]:
        """Verdict on every row of the images, and the frame of the accepted masks.

        A row is accepted if all of its masks are.
        """
        rows = [(image, row) for image in images for row in image.rows]
        frame, owner = self._measured_frame(images)
        broken = self.contract.first_broken(frame)
        first_bad = broken.dropna().groupby(owner).head(1)
        bad_position = dict(zip(owner[first_bad.index], first_bad.index, strict=True))
        verdicts = []
        for number, (image, row) in enumerate(rows):
            rule, value = None, ""
            if number in bad_position:
                position = bad_position[number]
                rule = self.contract[broken[position]]
                value = rule.value(frame.loc[position])
            verdicts.append(Verdict(image=image, row=row, rule=rule, value=value))
        return verdicts, frame[~owner.isin(list(bad_position))]

    def _measured_frame(self, images: Sequence[MeasuredImage]) -> tuple[pd.DataFrame, pd.Series]:
        """One frame row per mask, or per row without masks, and the number of the row it belongs to."""
        records: list[dict[str, Any]] = []
        owners: list[int] = []
        number = 0
        for image in images:
            again = self.seen.image(image.raw.image_id)
            for row in image.rows:
                values = _row_values(image, row, self.seen.row(row), again)
                values |= self._compared(image, row)
                for mask in row.masks or (None,):
                    records.append(values | _mask_values(mask, values))
                    owners.append(number)
                number += 1
        frame = as_frame(records, self.columns)
        return frame, pd.Series(owners, frame.index, dtype="int64")

    def _compared(self, image: MeasuredImage, row: MeasuredRow) -> dict[str, Any]:
        """The split, and what a row's image has to do with images elsewhere."""
        split, raw, found = self.split_of(image, row), image.raw, None
        if split == TRAINING_SPLIT:
            found = self.benchmarks.find(raw.image_id, raw.image_numbering, image.sha256)
        return {"split": split, "benchmark_image": found}


def as_frame(records: list[dict[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Numbers become float64 (whole ones stay exact below 2**53), missing ones NaN."""
    frame = pd.DataFrame.from_records(records, columns=[*columns, *PROBLEM_COLUMNS, "repeated"])
    numeric = [name for name, kind in columns.items() if kind in ("int", "float")]
    return frame.astype(dict.fromkeys(numeric, "float64"))


def manifest_schema(columns: Mapping[str, str]) -> pa.Schema:
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in columns.items()])


def as_table(frame: pd.DataFrame, columns: Mapping[str, str]) -> pa.Table:
    """The accepted frame as rows of the stored manifest."""
    arrays = [pa.Array.from_pandas(frame[name]).cast(ARROW_TYPES[kind]) for name, kind in columns.items()]
    return pa.table(arrays, schema=manifest_schema(columns))


def validation_frame(manifest: pa.Table) -> pd.DataFrame:
    """Rows of a stored manifest as the frame they were accepted from."""
    frame = manifest.to_pandas()
    return frame.assign(**dict.fromkeys(PROBLEM_COLUMNS), repeated=False)


def _row_values(image: MeasuredImage, row: MeasuredRow, repeated: bool, image_again: bool) -> dict[str, Any]:
    raw = image.raw
    again = Problem(rule="image_unique", value=f"image {raw.image_id} again") if image_again else None
    problem = image.problem or again or row.raw.problem
    width, height = image.size or (None, None)
    stated_width, stated_height = raw.stated_size or (None, None)
    lengths = [len(visible(expression)) for expression in row.raw.expressions]
    unreadable = row.raw.problem is not None
    return {
        "source_file": raw.source_file,
        "image_id": raw.image_id,
        "row_id": row.raw.row_id,
        "width": width,
        "height": height,
        "pixels": width * height if width and height else None,
        "stated_width": stated_width,
        "stated_height": stated_height,
        "repeated": repeated,
        "no_target": row.raw.no_target,
        "expressions": None if unreadable else len(lengths),
        "shortest_expression": min(lengths, default=None),
        "longest_expression": max(lengths, default=None),
        "stray_masks": len(row.masks) if row.raw.no_target else 0,
        "missing_masks": int(not row.masks and not row.raw.no_target and not unreadable),
        **_answer_values(image, row.raw),
        "problem_rule": problem.rule if problem else None,
        "problem": problem.value if problem else None,
    }


def _answer_values(image: MeasuredImage, row: RawRow) -> dict[str, Any]:
    if row.answers is None:
        return {}
    return {
        "category": row.answers.category,
        "answers": len(row.answers.texts),
        "other_than_yes_no": sum(text not in ("yes", "no") for text in row.answers.texts),
        "questions_of_image": sum(other.raw.answers is not None for other in image.rows),
    }


def _mask_values(mask: MeasuredMask | None, row_values: Mapping[str, Any]) -> dict[str, Any]:
    if mask is None:
        return {"mask_id": ""}
    values = {"mask_id": mask.raw.mask_id, "category": mask.raw.category, **mask.values}
    if row_values["problem_rule"] is None and mask.problem is not None:
        values |= {"problem_rule": mask.problem.rule, "problem": mask.problem.value}
    return values
