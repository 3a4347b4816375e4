"""What the tokenizer's training stages report: health of the run, held-out quality, trivial baselines."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from alto_models.tokenizer.evaluation import Scores, View, constant_iou, mean_mask_baseline
from alto_models.tokenizer.interface import TokenizerSizes
from jobs.runner.context import Check
from jobs.runner.metric_log import MetricLog
from jobs.tokenizer_training.data import TrainingBatches

MEAN_MASK_BATCHES = 8


class HealthLimits(BaseModel):
    """
    max_loss_ratio: last logged value of the watched loss, over the first one.
    min_codebook_usage: share of the codebook that held-out masks must use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_loss_ratio: float = Field(gt=0)
    min_codebook_usage: float = Field(ge=0, le=1)


def training_health(log: MetricLog, loss_name: str, codebook_usage: float, limits: HealthLimits) -> Check:
    """Blocking: all logged values are finite, the loss fell, and the codebook is alive."""
    points = list(log.read())
    finite = all(math.isfinite(value) for point in points for value in point.values.values())
    losses = [point.values[loss_name] for point in points if loss_name in point.values]
    ratio = losses[-1] / losses[0]
    fell = ratio <= limits.max_loss_ratio
    alive = codebook_usage >= limits.min_codebook_usage
    return Check(
        name="training_health",
        passed=finite and fell and alive,
        blocking=True,
        reason=(
            f"{'all' if finite else 'NOT all'} logged values are finite; {loss_name} ended at {ratio:.2f} times "
            f"its start (limit {limits.max_loss_ratio:g}); held-out masks use {codebook_usage:.0%} of the "
            f"codebook (at least {limits.min_codebook_usage:.0%})"
        ),
        details={"loss_ratio": round(ratio, 4), "codebook_usage": round(codebook_usage, 4)},
    )


def constant_baselines(
    batches: TrainingBatches, config: TokenizerSizes, views: Sequence[View]
) -> dict[str, float]:
    """Mean IoU of answers that look at nothing."""
    masks = constant_masks(batches, config)
    return {name: float(constant_iou(mask, views).mean(dtype=np.float64)) for name, mask in masks.items()}


def constant_masks(batches: TrainingBatches, config: TokenizerSizes) -> dict[str, NDArray[np.bool_]]:
    """Answers that look at nothing, (M, M): the mean training mask, no pixel, every pixel."""
    training = [mask for step in range(MEAN_MASK_BATCHES) for mask in batches.at(step).masks[:, 0].numpy()]
    size = (config.mask_size, config.mask_size)
    return {
        "mean_mask": mean_mask_baseline(training),
        "all_zero": np.zeros(size, np.bool_),
        "all_one": np.ones(size, np.bool_),
    }


def beats_baselines(iou: float, baselines: dict[str, float]) -> Check:
    best = max(baselines, key=lambda name: baselines[name])
    return Check(
        name="beats_baselines",
        passed=iou > baselines[best],
        reason=f"held-out IoU {iou:.3f}; best baseline: {best.replace('_', ' ')}, {baselines[best]:.3f}",
        details={name: round(value, 4) for name, value in baselines.items()},
    )


def quality_figures(scores: Scores, codebook_size: int) -> dict[str, float | int | str]:
    """Headline figures: at full length (the last evaluated length), by view and by length."""
    longest = int(scores.lengths[-1])
    by_length = {f"iou_{length}_codes": scores.mean_iou(length=int(length)) for length in scores.lengths}
    figures = {
        "iou": scores.mean_iou(length=longest),
        "iou_whole_image": scores.mean_iou("whole", longest),
        "iou_crop": scores.mean_iou("crop", longest),
        "boundary_iou": float(scores.boundary_iou[:, -1].mean(dtype=np.float64)),
        "codebook_usage": scores.codebook_usage(codebook_size),
        **by_length,
    }
    return {name: round(value, 4) for name, value in figures.items()}


def adaptive_figures(scores: Scores) -> dict[str, float | int | str]:
    """Quality at the predicted length, and what a fixed length of the same mean would give."""
    mean_length = float(scores.predicted.mean(dtype=np.float64))
    iou = scores.mean_iou()
    fixed = fixed_iou_at(scores, mean_length)
    figures = {
        "adaptive_iou": iou,
        "adaptive_iou_whole_image": scores.mean_iou("whole"),
        "adaptive_boundary_iou": float(scores.predicted_boundary_iou.mean(dtype=np.float64)),
        "mean_length": mean_length,
        "adaptive_gain": iou - fixed,
    }
    return {name: round(value, 4) for name, value in figures.items()}


def fixed_iou_at(scores: Scores, length: float) -> float:
    """Mean IoU when every mask keeps `length` codes; linear between the evaluated lengths."""
    means = scores.iou.mean(axis=0, dtype=np.float64)
    return float(np.interp(length, scores.lengths, means))
