"""What a benchmark of questions leaves behind: `vqa_metrics.json` and `vqa_samples.parquet`."""

from typing import Literal

import pyarrow as pa

from jobs.benchmarking.results import Estimate, Result

VQA_METRICS_FILE = "vqa_metrics.json"
VQA_SAMPLES_FILE = "vqa_samples.parquet"

Scoring = Literal["pope", "vqav2", "mme"]

VQA_SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("system", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("pair", pa.string()),
        # What was put to the model, and what it said.
        pa.field("asked", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        # The answer as the official scorer reads it, what people said, and the share of right, 0 to 1.
        pa.field("read_as", pa.string(), nullable=False),
        pa.field("answers", pa.list_(pa.string()), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ],
    metadata={"schema": "vqa_samples", "version": "1"},
)


class VqaSystem(Result):
    """One system. score: mean over all questions, with an interval over images. figures: the official ones, by name.

    POPE: shares, of each file and (without its name) averaged over the files. VQAv2: percent, of all questions and of
    each sort of answer. MME: points of each subtask, and the sums `perception` and `cognition`.
    """

    system: str
    score: Estimate
    figures: dict[str, float]


class VqaMetrics(Result):
    """`vqa_metrics.json`. limit: images evaluated at most; None stands for the whole benchmark. systems: the challenger
    first, and the answer "yes" last."""

    benchmark: str
    scoring: Scoring
    limit: int | None
    images: int
    images_available: int
    questions: int
    confidence_level: float
    bootstrap_resamples: int
    systems: list[VqaSystem]
