"""Where two versions answer most differently: the largest gains and losses in IoU, drawn side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from jobs.benchmarking.scoring import sample_scores
from jobs.report.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, mask_panels
from orchestration.comparison.figures import QUESTION_KEY

SHOWN = 6  # gains, and losses


@dataclass(frozen=True, kw_only=True)
class ComparedSample:
    """One question and both answers. picture: PNG of image, truth, answer before, answer after; None where the image
    is not at hand. lengths: in mask tokens."""

    expression: str
    image_id: str
    iou_before: float
    iou_after: float
    length_before: int
    length_after: int
    picture: bytes | None


@dataclass(frozen=True, kw_only=True)
class Extremes:
    """Of one benchmark, the most different first, no image twice in a list."""

    benchmark: str
    gains: tuple[ComparedSample, ...]
    losses: tuple[ComparedSample, ...]


def find_extremes(
    benchmark: str, before: pd.DataFrame, after: pd.DataFrame, shards: Mapping[str, Path]
) -> Extremes | None:
    """Of questions with a target; None where the two did not answer the same questions.

    before, after: tables of `SAMPLES_SCHEMA`, one prompt mode each. shards: files of the prepared benchmark.
    """
    first, second = (table.sort_values(QUESTION_KEY, ignore_index=True) for table in (before, after))
    if not first[QUESTION_KEY].equals(second[QUESTION_KEY]):
        return None
    ious = [sample_scores(table).iou for table in (first, second)]
    gain = pd.Series(ious[1] - ious[0])[~first["no_target"]]
    picked = {
        "gains": _first_of_each_image(gain[gain > 0].sort_values(ascending=False, kind="stable"), first),
        "losses": _first_of_each_image(gain[gain < 0].sort_values(kind="stable"), first),
    }
    wanted = {str(first["image_id"][row]) for rows in picked.values() for row in rows}
    images = read_images(shards, wanted)

    def sample(row: int) -> ComparedSample:
        question, answer = first.iloc[row], second.iloc[row]
        image = images.get(question["image_id"])
        drawn = (
            (_counts(question, "target_counts"), TRUTH_COLOUR),
            (_counts(question, "predicted_counts"), PREDICTION_COLOUR),
            (_counts(answer, "predicted_counts"), PREDICTION_COLOUR),
        )
        ignored = _counts(question, "ignore_counts")
        return ComparedSample(
            expression=question["expression"],
            image_id=question["image_id"],
            iou_before=float(ious[0][row]),
            iou_after=float(ious[1][row]),
            length_before=int(question["length"]),
            length_after=int(answer["length"]),
            picture=None if image is None else mask_panels(image, drawn, ignored),
        )

    chosen = {name: tuple(sample(row) for row in rows) for name, rows in picked.items()}
    return Extremes(benchmark=benchmark, **chosen)


def read_images(shards: Mapping[str, Path], wanted: set[str]) -> dict[str, bytes]:
    """Image id -> encoded image, of those that are in the shards."""
    images: dict[str, bytes] = {}
    for name, path in sorted(shards.items()):
        if name.startswith("shard-") and wanted - images.keys():
            table = pq.read_table(
                path, columns=["image_id", "image"], filters=[("image_id", "in", sorted(wanted))]
            )
            images |= dict(zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    return images


def _counts(answer: pd.Series, column: str) -> str | None:
    """Pandas has NaN for null; tables of earlier versions lack columns that may be null."""
    value = answer.get(column)
    return value if isinstance(value, str) else None


def _first_of_each_image(ranked: pd.Series, samples: pd.DataFrame) -> list[int]:
    images = samples.loc[ranked.index, "image_id"]
    return [int(row) for row in images.drop_duplicates().index[:SHOWN]]
