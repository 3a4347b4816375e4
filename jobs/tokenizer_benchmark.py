"""Measures the mask tokenizer on held-out masks: quality against length, adaptive against fixed lengths.

`metrics.json` holds what the report shows, `samples.parquet` one row a mask. Two kinds of views: single
objects on the whole image (as the language model sees them) and merged masks on crops (as in training);
figures are means over all masks, at the tokenizer's mask resolution.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import spearmanr

from alto_models.bootstrap import ImageBootstrap
from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.evaluation import CROP, WHOLE, Scores, View, constant_iou, evaluate
from alto_models.tokenizer.interface import Tokenizer, TokenizerSizes
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer
from alto_models.tokenizer.prefixes import oracle_length, spread_lengths
from alto_models.training.precision import own_device
from data_contracts.errors import InputError
from jobs.benchmarking.results import with_limit
from jobs.benchmarking.shards import in_shards
from jobs.benchmarking.tokenizer_samples import sample_table, schema, scores_of
from jobs.runner.command_line import run_from_command_line
from jobs.runner.context import JobConfig, StageContext, StageReport
from jobs.tokenizer_training.data import CropsConfig, HeldOutViews, TrainingBatches
from jobs.tokenizer_training.pictures import save_lines, save_scatter, save_strips
from jobs.tokenizer_training.report import beats_baselines, constant_masks

METRICS_FILE = "metrics.json"
SAMPLES_FILE = "samples.parquet"
STRIPS = 12
SHOWN_LENGTHS = 5
RESAMPLES = 1000


class Config(JobConfig):
    crops: CropsConfig = Field(description="how held-out crops and their masks are drawn")
    images: int = Field(gt=0, description="of the held-out split, at most")
    images_per_shard: int = Field(gt=0, description="images between two points a killed run resumes from")
    oracle_tolerance: float = Field(
        ge=0, description="IoU a prefix may lack against the full length to count as enough"
    )


class LengthPoint(BaseModel):
    """Every mask cut to `length` codes of log2(codebook size) bits each."""

    model_config = ConfigDict(frozen=True)

    length: int
    bits: float
    iou: float
    boundary_iou: float


class Oracle(BaseModel):
    """The shortest prefix within `tolerance` of the full length's IoU, and how far the predictor is off.

    regret, absolute_regret: mean of predicted - oracle length, and of its absolute value, in codes.
    iou_regret: mean IoU at the oracle lengths less that at the predicted ones.
    """

    model_config = ConfigDict(frozen=True)

    tolerance: float
    iou: float
    mean_length: float
    regret: float
    absolute_regret: float
    iou_regret: float


class Metrics(BaseModel):
    """iou, boundary_iou, mean_length: at the predicted lengths.

    limit: held-out images measured, where these are not all. images: those of them with masks.
    fixed_iou, fixed_boundary_iou: at the same mean length for all masks, linear between whole lengths.
    adaptive_gain: iou - fixed_iou; adaptive_gain_interval: where it lies with 95 % confidence, images resampled.
    length_complexity: Spearman correlation of predicted length and contour length.
    """

    model_config = ConfigDict(frozen=True)

    limit: int | None
    masks: int
    images: int
    codebook_size: int
    max_length: int
    iou: float
    boundary_iou: float
    mean_length: float
    iou_whole_image: float
    iou_crop: float
    full_iou: float
    fixed_iou: float
    fixed_boundary_iou: float
    adaptive_gain: float
    adaptive_gain_interval: tuple[float, float]
    length_complexity: float
    codebook_usage: float
    oracle: Oracle
    baselines: dict[str, float]
    by_length: list[LengthPoint]


def run(config: Config, context: StageContext) -> StageReport:
    return measure(load_tokenizer(context.inputs["tokenizer_stage1_5"]).to(own_device()), config, context)


def measure(model: Tokenizer, config: Config, context: StageContext) -> StageReport:
    """Measure any tokenizer; against its untrained self, too, where it is one that we train."""
    views = HeldOutViews(config.crops, model.config, context)
    compared = Comparison.of(model, config, context)
    images = min(config.images, views.images)
    shards = in_shards(
        "masks", images, config.images_per_shard, lambda places: compared.samples(views.of(places)), context
    )
    if shards is None:
        return StageReport(figures={})  # only the first process's counts
    samples = pa.concat_tables(shards)
    if not len(samples):
        raise InputError(f"{images} held-out images have no mask to measure; see crops.min_area_share")
    scores = scores_of(samples)
    baselines = {name: _mean(samples[f"{name}_iou"].to_numpy()) for name in compared.baselines}
    limit = images if images < views.images else None
    metrics = summarise(scores, model.config, config.oracle_tolerance, baselines, context.seed, limit)
    (context.output / METRICS_FILE).write_text(metrics.model_dump_json(indent=1) + "\n")
    pq.write_table(with_limit(samples, limit), context.output / SAMPLES_FILE, compression="zstd")
    _save_pictures(context.output / "pictures", scores, metrics)
    shown = spread_lengths(model.config.max_length, SHOWN_LENGTHS).tolist()
    first = views.of(range(min(STRIPS, images)))[:STRIPS]
    save_strips(model, first, shown, context.output / "pictures" / "samples.png")
    return StageReport(figures=_figures(metrics), checks=(beats_baselines(metrics.iou, baselines),))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A tokenizer beside answers that look at nothing, and its untrained self where that can be made."""

    model: Tokenizer
    constant: Mapping[str, NDArray[np.bool_]]
    untrained: MaskTokenizer | None

    @classmethod
    def of(cls, model: Tokenizer, config: Config, context: StageContext) -> "Comparison":
        constant = constant_masks(TrainingBatches(config.crops, model.config, context), model.config)
        untrained = None
        if isinstance(model, MaskTokenizer):
            untrained = _untrained(model.config, context.seed).to(model.device)
        return cls(model=model, constant=constant, untrained=untrained)

    @property
    def baselines(self) -> list[str]:
        return [*self.constant, *(["untrained"] if self.untrained else [])]

    def samples(self, views: Sequence[View]) -> pa.Table:
        """The masks of some views, at every length."""
        if not views:
            return schema(self.baselines).empty_table()
        longest = self.model.config.max_length
        scores = evaluate(self.model, views, range(1, longest + 1))
        ious = {name: constant_iou(mask, views) for name, mask in self.constant.items()}
        if self.untrained is not None:
            ious["untrained"] = evaluate(self.untrained, views, [longest]).iou[:, -1]
        return sample_table(scores, ious)


def summarise(
    scores: Scores,
    config: TokenizerSizes,
    tolerance: float,
    baselines: dict[str, float],
    seed: int,
    limit: int | None,
) -> Metrics:
    mean_length = _mean(scores.predicted)
    fixed = between_lengths(scores.iou, scores.lengths, mean_length)
    everyone = np.ones(len(fixed))
    gain = ImageBootstrap.draw(scores.image_ids, resamples=RESAMPLES, seed=seed).difference(
        (scores.predicted_iou, everyone), (fixed, everyone)
    )
    return Metrics(
        limit=limit,
        masks=len(scores.kinds),
        images=len(set(scores.image_ids)),
        codebook_size=config.codebook_size,
        max_length=config.max_length,
        iou=scores.mean_iou(),
        boundary_iou=_mean(scores.predicted_boundary_iou),
        mean_length=mean_length,
        iou_whole_image=scores.mean_iou(WHOLE),
        iou_crop=scores.mean_iou(CROP),
        full_iou=_mean(scores.iou[:, -1]),
        fixed_iou=_mean(fixed),
        fixed_boundary_iou=_mean(between_lengths(scores.boundary_iou, scores.lengths, mean_length)),
        adaptive_gain=gain.value,
        adaptive_gain_interval=(gain.low, gain.high),
        length_complexity=rank_correlation(scores.predicted, scores.boundary_length),
        codebook_usage=scores.codebook_usage(config.codebook_size),
        oracle=_oracle(scores, tolerance),
        baselines=baselines,
        by_length=[
            LengthPoint(
                length=int(length),
                bits=int(length) * math.log2(config.codebook_size),
                iou=_mean(scores.iou[:, column]),
                boundary_iou=_mean(scores.boundary_iou[:, column]),
            )
            for column, length in enumerate(scores.lengths)
        ],
    )


def between_lengths(
    values: NDArray[np.float32], lengths: NDArray[np.int64], length: float
) -> NDArray[np.float64]:
    """Each mask's value at any one `length`, from those (rows, N) at `lengths`; linear in between: (rows,)."""
    return np.array([np.interp(length, lengths, row) for row in values])


def rank_correlation(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Spearman's correlation; 0 where one of them is constant."""
    if len(np.unique(first)) == 1 or len(np.unique(second)) == 1:
        return 0.0
    return float(spearmanr(first, second).statistic)


def _oracle(scores: Scores, tolerance: float) -> Oracle:
    lengths = oracle_length(torch.from_numpy(scores.iou), tolerance).numpy()
    off = scores.predicted - lengths
    iou = _mean(np.take_along_axis(scores.iou, lengths[:, None] - 1, axis=1))
    return Oracle(
        tolerance=tolerance,
        iou=iou,
        mean_length=_mean(lengths),
        regret=_mean(off),
        absolute_regret=_mean(np.abs(off)),
        iou_regret=iou - scores.mean_iou(),
    )


def _untrained(config: TokenizerConfig, seed: int) -> MaskTokenizer:
    torch.manual_seed(seed)
    return MaskTokenizer(config).eval()


def _save_pictures(folder: Path, scores: Scores, metrics: Metrics) -> None:
    folder.mkdir()
    bits = [point.bits for point in metrics.by_length]
    lines = {
        "IoU, fixed length": (bits, [point.iou for point in metrics.by_length]),
        "boundary IoU, fixed length": (bits, [point.boundary_iou for point in metrics.by_length]),
    }
    bits_a_code = bits[0]
    points = {
        "IoU, adaptive": (metrics.mean_length * bits_a_code, metrics.iou),
        "boundary IoU, adaptive": (metrics.mean_length * bits_a_code, metrics.boundary_iou),
        "IoU, oracle": (metrics.oracle.mean_length * bits_a_code, metrics.oracle.iou),
    }
    axis = f"bits a mask, {bits_a_code:g} a code"
    save_lines(folder / "quality_by_bits.png", axis, "IoU", lines, points)
    save_scatter(
        folder / "length_by_complexity.png",
        "contour length in mask pixels",
        "predicted length in codes",
        scores.boundary_length,
        scores.predicted,
    )


def _figures(metrics: Metrics) -> dict[str, float | int | str]:
    names = ["iou", "boundary_iou", "mean_length", "iou_whole_image", "iou_crop", "full_iou", "fixed_iou"]
    names += ["adaptive_gain", "length_complexity", "codebook_usage"]
    figures: dict[str, float | int | str] = {name: round(getattr(metrics, name), 4) for name in names}
    figures["oracle_regret"] = round(metrics.oracle.regret, 4)
    figures["oracle_iou_regret"] = round(metrics.oracle.iou_regret, 4)
    figures |= {f"{name}_iou": round(iou, 4) for name, iou in metrics.baselines.items()}
    limit = "whole held-out part" if metrics.limit is None else metrics.limit
    return figures | {"masks": metrics.masks, "limit": limit}


def _mean(values: NDArray[np.number]) -> float:
    return float(values.mean(dtype=np.float64))


if __name__ == "__main__":
    run_from_command_line("tokenizer_benchmark")
