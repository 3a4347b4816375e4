"""Figures of two versions, with the interval of the difference where both answered the same questions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from alto_models.bootstrap import ImageBootstrap, Interval
from alto_models.referring_scores import Ratio, metric_ratios
from jobs.benchmarking.scoring import SAMPLE_KEY, sample_scores
from orchestration.promotion.rules import SMALLER_IS_BETTER

METRICS = ("giou", "ciou", "miou", "boundary_iou", "n_acc", "t_acc", "mean_length", "malformed")
# What makes two rows answers to the same question: with a mask, of the tokenizer alone, in words.
QUESTION_KEY = [*SAMPLE_KEY, "expression", "target_area"]
MASK_KEY = ["image_id", "view", "area", "boundary_length"]
ANSWER_KEY = ["image_id", "question_id"]

RESAMPLES, LEVEL = 1000, 0.95
Ratios = Callable[[pd.DataFrame], dict[str, Ratio]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """before, after: None where a side was not measured or nothing defines it. difference: after minus before, with
    the interval of the paired bootstrap; None where the two did not answer the same questions."""

    metric: str
    before: float | None
    after: float | None
    difference: Interval | None

    @property
    def reading(self) -> str:
        """What the interval says; empty where there is none."""
        if self.difference is None:
            return ""
        if self.difference == (0, 0, 0):
            return "the same"
        better = self.metric not in SMALLER_IS_BETTER
        if self.difference.low > 0:
            return "better" if better else "worse"
        if self.difference.high < 0:
            return "worse" if better else "better"
        return "no clear difference"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One benchmark in one prompt mode. notes: coverage of each side, and what cannot be said and why.

    slowdown: seconds an answer, after over before; None where that is not known.
    """

    benchmark: str
    mode: str
    protocol: str
    figures: tuple[Figure, ...]
    slowdown: float | None = None
    notes: tuple[str, ...] = field(default=())


def compare_tables(
    before: pd.DataFrame | None, after: pd.DataFrame | None, key: Sequence[str], ratios: Ratios
) -> tuple[Figure, ...]:
    """Figures of two sample tables; paired where their keys are the same. None: a side was not measured."""
    tables = [
        None if table is None else table.sort_values(list(key), kind="stable", ignore_index=True)
        for table in (before, after)
    ]
    measured = [{} if table is None else ratios(table) for table in tables]
    first, second = tables
    bootstrap = None
    if first is not None and second is not None and first[list(key)].equals(second[list(key)]):
        bootstrap = ImageBootstrap.draw(first["image_id"].tolist(), resamples=RESAMPLES, seed=0, level=LEVEL)
    return tuple(_figure(name, measured[0], measured[1], bootstrap) for name in (measured[0] or measured[1]))


def _figure(
    metric: str, before: dict[str, Ratio], after: dict[str, Ratio], bootstrap: ImageBootstrap | None
) -> Figure:
    difference = None
    if bootstrap is not None:
        found = bootstrap.difference(after[metric], before[metric])
        difference = None if math.isnan(found.value) else found
    return Figure(
        metric=metric,
        before=_value(before.get(metric)),
        after=_value(after.get(metric)),
        difference=difference,
    )


def _value(ratio: Ratio | None) -> float | None:
    return None if ratio is None or not ratio[1].sum() else float(ratio[0].sum() / ratio[1].sum())


def mask_ratios(samples: pd.DataFrame) -> dict[str, Ratio]:
    """Of a table of `SAMPLES_SCHEMA`, one system in one prompt mode."""
    found = metric_ratios(sample_scores(samples))
    return {name: found[name] for name in METRICS}


def tokenizer_ratios(samples: pd.DataFrame) -> dict[str, Ratio]:
    everyone = np.ones(len(samples))
    columns = {"iou": "iou", "boundary_iou": "boundary_iou", "mean_length": "length"}
    return {name: (samples[column].to_numpy(np.float64), everyone) for name, column in columns.items()}


def answer_ratios(samples: pd.DataFrame) -> dict[str, Ratio]:
    return {"right answers": (samples["score"].to_numpy(np.float64), np.ones(len(samples)))}
