"""What a benchmark leaves behind: `metrics.json`, `samples.parquet` and `gallery.parquet`.

Written by `jobs.benchmark`, read by `jobs.benchmark_report` and by whoever decides on promotion.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.errors import InputError
from data_contracts.schemas import described

METRICS_FILE = "metrics.json"
SAMPLES_FILE = "samples.parquet"
RELEASED_SAMPLES_FILE = "released_samples.parquet"
GALLERY_FILE = "gallery.parquet"

# Prompt modes; a system that knows no length, such as a baseline mask, has NO_MODE.
FULL = "full"
ADAPTIVE = "adaptive"
NO_MODE = ""

Share = Annotated[float, Field(ge=0, le=1)]

SAMPLES_SCHEMA = pa.schema(
    [
        described("system", pa.string(), "who answered: a trained model or a baseline"),
        described("mode", pa.string(), "full or adaptive prompt; empty for a system that knows no length"),
        described("image_id", pa.string(), "image that was shown"),
        described("record_id", pa.string(), "record of the benchmark that was asked about"),
        described("expression_index", pa.int32(), "which of the record's expressions, from 0", "index"),
        described("expression", pa.string(), "what means the target"),
        described(
            "asked",
            pa.string(),
            "what was put to the model: not `expression` for the one that ignores the text",
        ),
        described("category", pa.string(), "name of the target's category; empty where there is none"),
        described("target_objects", pa.int32(), "instances that are meant", "objects"),
        described("no_target", pa.bool_(), "whether the expression means nothing in the image"),
        described("width", pa.int32(), "of the image in which masks are scored", "pixels"),
        described("height", pa.int32(), "of the image in which masks are scored", "pixels"),
        described("target_area", pa.int64(), "pixels of the truth", "pixels"),
        described(
            "complexity",
            pa.float64(),
            "squared boundary pixels over 4 pi x area of the truth: about 0.8 for a disc, more for winding outlines",
            "ratio",
            nullable=True,
        ),
        described("answer", pa.string(), "what the model wrote"),
        described(
            "codes",
            pa.list_(pa.int32()),
            "mask tokens in the answer",
        ),
        described("length", pa.int32(), "how many", "codes"),
        described("malformed", pa.bool_(), "whether the answer is neither a mask nor 'no target'"),
        described("predicted_area", pa.int64(), "pixels of the answer's mask", "pixels"),
        described("intersection", pa.int64(), "pixels of both", "pixels"),
        described("union", pa.int64(), "pixels of either", "pixels"),
        described("iou", pa.float64(), "intersection over union; 0 for a malformed answer", "0 to 1"),
        described("boundary_iou", pa.float64(), "the same of the bands along the outlines", "0 to 1"),
        described(
            "target_counts",
            pa.string(),
            "runs of the truth in the original image; null for an empty mask",
            "compressed COCO RLE",
            nullable=True,
        ),
        described(
            "predicted_counts",
            pa.string(),
            "runs of the answer's mask; null for an empty mask",
            "compressed COCO RLE",
            nullable=True,
        ),
        described(
            "ignore_counts",
            pa.string(),
            "runs of pixels that count neither way and are in none of the figures, though they may be predicted",
            "compressed COCO RLE",
            nullable=True,
        ),
    ],
    metadata={"schema": "benchmark_samples", "version": "2"},
)

GALLERY_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        # Why the sample is shown ("best", "worst", "longest", "shortest") and which of them it is.
        pa.field("reason", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("sample", pa.struct(list(SAMPLES_SCHEMA)), nullable=False),
    ],
    metadata={"schema": "benchmark_gallery", "version": "2"},
)


def with_limit(table: pa.Table, limit: int | None) -> pa.Table:
    """The table, which says in its metadata how many images were evaluated at most; nothing for the whole benchmark."""
    metadata = table.schema.metadata or {}
    return table if limit is None else table.replace_schema_metadata(metadata | {b"limit": str(limit)})


class Result(BaseModel):
    """Base of all models here: frozen, strict about unknown keys, NaN kept out (null instead)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Result):
    """A figure with its bootstrap confidence interval."""

    value: float
    low: float
    high: float


class SystemMetrics(Result):
    """All figures of one system in one prompt mode; a figure is None where nothing defines it.

    bits: mean length x log2(codebook size). precision: IoU level -> share of samples reaching it.
    class_miou: mean over categories of their summed intersection over their summed union, as open-vocabulary
        segmentation is measured; questions on several categories at once are left out.
    """

    system: str
    mode: str
    samples: int
    targets: int
    giou: Estimate | None
    ciou: Estimate | None
    miou: Estimate | None
    n_acc: Estimate | None
    t_acc: Estimate | None
    boundary_iou: Estimate | None
    precision: dict[str, float]
    class_miou: float | None
    mean_length: Estimate | None
    bits: float | None
    malformed: Share
    malformed_answers: int


class Slice(Result):
    """Figures of a part of the samples: those whose `dimension` ("category", "size", ...) is `value`."""

    dimension: str
    value: str
    system: str
    mode: str
    samples: int
    giou: float
    mean_length: float | None


class Comparison(Result):
    """Paired difference in gIoU of a learned system and a reference on the same samples.

    better: the whole confidence interval lies above zero.
    """

    system: str
    mode: str
    reference: str
    reference_mode: str
    difference: Estimate
    better: bool


class BenchmarkMetrics(Result):
    """`metrics.json`. limit: images evaluated at most; None stands for the whole benchmark.

    protocol: of `systems`, `slices` and `comparisons`. released: figures under the protocol of ALToLLM's released
    evaluation, which are not to be compared with the others.
    """

    benchmark: str
    protocol: Literal["standard"]
    limit: int | None
    images: int
    images_available: int
    records: int
    expressions: int
    no_target_expressions: int
    codebook_size: int
    max_length: int
    confidence_level: float
    bootstrap_resamples: int
    challenger: str
    starting_point: str | None
    learned: list[str]
    baselines: list[str]
    systems: list[SystemMetrics]
    released: list[SystemMetrics]
    slices: list[Slice]
    comparisons: list[Comparison]

    def find(self, system: str, mode: str) -> SystemMetrics | None:
        """Metrics of `system` in `mode`; a system without modes (a baseline mask) answers to any."""
        for metrics in self.systems:
            if metrics.system == system and metrics.mode in (mode, NO_MODE):
                return metrics
        return None


class LengthPoint(Result):
    """Tokenizer quality with masks cut to `length` codes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    length: float
    bits: float
    iou: float
    boundary_iou: float


class OracleLength(Result):
    """The shortest prefix whose IoU is within `tolerance` of the full length's, mask by mask.

    regret: mean of predicted minus oracle length, in codes. iou_regret: mean of oracle minus predicted IoU.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    tolerance: float
    iou: float
    mean_length: float
    regret: float
    iou_regret: float


class TokenizerMetrics(Result):
    """The part of the tokenizer benchmark's `metrics.json` that the report shows.

    iou, boundary_iou, mean_length: at the predicted lengths. iou_whole_image: of masks drawn on the whole
    image, as the language model's are. fixed_iou: with the same mean length for all masks.
    adaptive_gain_interval: of iou - fixed_iou, with 95 % confidence.
    length_complexity: Spearman correlation of predicted length and contour length.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    masks: int
    iou: float
    boundary_iou: float
    mean_length: float
    iou_whole_image: float
    fixed_iou: float
    adaptive_gain_interval: tuple[float, float]
    length_complexity: float
    oracle: OracleLength
    baselines: dict[str, float]
    by_length: list[LengthPoint] = Field(min_length=1)

    @property
    def bits_per_token(self) -> float:
        return self.by_length[-1].bits / self.by_length[-1].length

    @property
    def milestones(self) -> list[LengthPoint]:
        """Lengths that are powers of two, and the full length."""
        last = self.by_length[-1]
        powers = {2.0**power for power in range(16)}
        return [point for point in self.by_length if point.length in powers or point is last]


ModelT = TypeVar("ModelT", bound=BaseModel)


def read_metrics(path: Path, model: type[ModelT]) -> ModelT:
    """Raises InputError when the file is absent or is not what `model` describes."""
    if not path.is_file():
        raise InputError(f"{path}: missing; run the stage that writes it")
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"{path}: {field}: {first['msg']}; run the stage again") from error


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Raises InputError when the file is absent or has other columns."""
    if not path.is_file():
        raise InputError(f"{path}: missing; run the stage that writes it")
    table = pq.read_table(path)
    if not table.schema.equals(schema):
        raise InputError(f"{path}: its columns are not those of this version; run the stage again")
    return table
