"""Measured rows as the frame a contract is checked on, and the verdict on each row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from data_contracts.rules import Contract, Rule
from jobs.formats.raw import Problem, RawRow, visible
from jobs.preparation.benchmark_images import BenchmarkImages
from jobs.preparation.measuring import MeasuredImage, MeasuredMask, MeasuredRow, Values
from jobs.preparation.rows import TRAINING_SPLIT
from jobs.preparation.seen import Place, Repetitions, Seen

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


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Holds rows against a contract; `seen` remembers what came before, so images are judged in reading order.

    splits_share_no_image: whether the publisher promises it of its splits.
    """

    contract: Contract
    seen: Seen
    split_of: SplitOf
    splits_share_no_image: bool = False
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
            if not image.rows:
                continue
            place = self.place(image)
            first = place if image.problem else self.seen.first_place(image, place)
            repetitions = Repetitions(within_row=self.seen.across_images)
            for row in image.rows:
                values = _row_values(image, row, self.seen.row(row), again)
                values |= self._elsewhere(image, row, place, first)
                values["same_expression"] = repetitions.expression(row)
                for mask in row.masks:
                    same_mask = {"same_mask": repetitions.mask(row, mask)}
                    records.append(values | _mask_values(mask, values) | same_mask)
                if not row.masks:
                    records.append(values | {"mask_id": ""})
                owners += [number] * max(1, len(row.masks))
                number += 1
        frame = as_frame(records, self.contract.columns)
        return frame, pd.Series(owners, frame.index, dtype="int64")

    def place(self, image: MeasuredImage) -> Place:
        """The split an image (with rows) belongs to: that of its first row which can be read."""
        row = next((row for row in image.rows if row.raw.problem is None), image.rows[0])
        promised = self.splits_share_no_image or row.raw.split is None
        return Place(image.raw.image_id, self.split_of(image, row), promised)

    def _elsewhere(self, image: MeasuredImage, row: MeasuredRow, place: Place, first: Place) -> Values:
        """The split, and where else the row's image is."""
        split, raw = self.split_of(image, row), image.raw
        values: Values = {"split": split}
        if first.image_id != raw.image_id:
            values["same_image"] = f"image {first.image_id} has the same bytes"
        if place.promised and split != place.split:
            values["other_split"] = f"image {raw.image_id} is in split {place.split}, too"
        elif place.promised and first.promised and split != first.split:
            values["other_split"] = f"image {first.image_id} of split {first.split} has the same bytes"
        if split == TRAINING_SPLIT:
            values["benchmark_image"] = self.benchmarks.find(raw.image_id, raw.image_numbering, image.sha256)
        return values


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


def _mask_values(mask: MeasuredMask, row_values: Mapping[str, Any]) -> Values:
    values = {"mask_id": mask.raw.mask_id, "category": mask.raw.category, **mask.values}
    if row_values["problem_rule"] is None and mask.problem is not None:
        values |= {"problem_rule": mask.problem.rule, "problem": mask.problem.value}
    return values
