"""A small prepared benchmark of coloured shapes, and systems whose answers are known beforehand."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from alto_models import masks
from data_contracts.schemas import REFERRING_SCHEMA
from jobs import benchmark
from jobs.benchmarking.questions import Question
from jobs.benchmarking.rows import Prediction
from jobs.runner.context import StageContext
from jobs.runner.metric_log import MetricLog

HEIGHT, WIDTH = 48, 64
COLOURS = ((214, 69, 65), (66, 120, 190), (240, 200, 80), (110, 170, 110))


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def instance(name: str, category: str, mask: np.ndarray) -> dict:
    rle = masks.encode(mask)
    runs = masks.parse_counts(rle.counts)
    return {
        "instance_id": name,
        "category": category,
        "counts": rle.counts,
        "box": [float(side) for side in masks.box(runs, HEIGHT)],
        "area": masks.area(runs),
    }


def record(name: str, expressions: list[str], instances: list[dict]) -> dict:
    rles = [masks.Rle(HEIGHT, WIDTH, item["counts"]) for item in instances]
    counts = masks.union(rles).counts if rles else None
    runs = masks.parse_counts(counts) if counts else np.zeros(1, np.int64)
    return {
        "record_id": name,
        "expressions": expressions,
        "no_target": not instances,
        "counts": counts,
        "area": masks.area(runs),
        "boundary_length": masks.boundary_length(runs, HEIGHT) if counts else 0,
        "ignore": None,
        "instances": instances,
    }


def image_row(number: int) -> dict:
    """A large disc, a small disc and a ring; four records: each alone, two together, none."""
    draw = np.random.default_rng(number)
    shapes = {
        "disc": disc(16 + int(draw.integers(4)), 14 + int(draw.integers(4)), 9 + number % 3),
        "dot": disc(48 + int(draw.integers(6)), 10 + int(draw.integers(4)), 4),
        "ring": disc(44, 34, 10) & ~disc(44, 34, 6),
    }
    picture = np.full((HEIGHT, WIDTH, 3), 235, np.uint8)
    for colour, mask in zip(COLOURS, shapes.values(), strict=False):
        picture[mask] = colour
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "png")
    objects = {name: instance(f"{number}-{name}", name, mask) for name, mask in shapes.items()}
    return {
        "image_id": f"image-{number:03d}",
        "source": "hand-made",
        "split": "val",
        "width": WIDTH,
        "height": HEIGHT,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_sha256": "0" * 64,
        "image": encoded.getvalue(),
        "records": [
            record(f"{number}-a", ["the red disc", "the disc on the left"], [objects["disc"]]),
            record(f"{number}-b", ["the <b>ring</b> & its hole"], [objects["ring"]]),
            record(f"{number}-c", ["the blue dot and the ring"], [objects["dot"], objects["ring"]]),
            record(f"{number}-d", ["the green star"], []),
        ],
    }


def write_prepared(folder: Path, images: int) -> None:
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist([image_row(number) for number in range(images)], schema=REFERRING_SCHEMA)
    pq.write_table(table, folder / "shard-00000.parquet")


def stage_context(folder: Path, stage: str, partition: str | None = None, **inputs: Path) -> StageContext:
    output, work = folder / "output", folder / "work"
    for made in (output, work):
        made.mkdir(parents=True, exist_ok=True)
    return StageContext(
        stage=stage,
        partition=partition,
        partition_items=(),
        seed=7,
        inputs=inputs,
        output=output,
        work=work,
        metric_log=MetricLog(work / "metrics.jsonl"),
    )


def config(**changes: object) -> benchmark.Config:
    values = {
        "limit": None,
        "questions_per_batch": 8,
        "images_per_shard": 4,
        "bootstrap_resamples": 200,
        "confidence_level": 0.95,
        "samples_shown": 3,
        "max_malformed": 0.05,
    }
    return benchmark.Config.model_validate(values | changes)


@dataclass(frozen=True)
class ShiftedTruth:
    """Answers with the truth moved right by `shift` pixels, with as many codes as its outline needs."""

    name: str
    shift: int
    modes: tuple[str, ...] = ("full", "adaptive")
    presence_asked_first: bool = False

    def predict(self, questions: Sequence[Question], mode: str) -> list[Prediction]:
        return [self._one(question, mode) for question in questions]

    def _one(self, question: Question, mode: str) -> Prediction:
        truth = question.image.truths[question.record.record_id].mask
        if not truth.any():
            return Prediction(mask=None, asked=question.expression, answer="There is no such object.")
        needed = min(16, 2 + int(4 * (question.record.complexity or 0)))
        length = 16 if mode == "full" else needed
        return Prediction(
            mask=np.roll(truth, self.shift, axis=1),
            asked=question.expression,
            answer="The mask appears at <ALTo_Start>…<ALTo_End>.",
            codes=tuple(range(length)),
        )


def known_systems() -> list[ShiftedTruth]:
    """Stand-ins of the language models, from good to useless."""
    return [
        ShiftedTruth("altollm_grpo", 1),
        ShiftedTruth("altollm_sft", 2),
        ShiftedTruth("untrained", 30, ("adaptive",)),
        ShiftedTruth("text_ignored", 24, ("adaptive",)),
    ]
