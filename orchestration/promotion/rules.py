"""The rules of promotion, applied to paired samples of challenger and champion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from pydantic import Field

from alto_models.bootstrap import Interval
from jobs.benchmarking.results import ADAPTIVE, FULL, BenchmarkMetrics
from jobs.benchmarking.scoring import Scoreboard
from jobs.benchmarking.vqa_results import Scoring
from jobs.runner.context import JobConfig
from jobs.runner.registry import CHALLENGER, CHAMPION

Metric = Literal["giou", "ciou", "miou", "n_acc", "t_acc", "boundary_iou", "mean_length", "malformed"]
SMALLER_IS_BETTER = frozenset({"mean_length", "malformed"})


class PromotionRules(JobConfig):
    """Section `promotion` of params.yaml. "For sure" means: by the whole interval of the paired bootstrap.

    mode: prompt mode that is compared.
    gains: metrics of which at least one must be better for sure, on at least one benchmark.
    max_loss: metric -> by how much it may be worse; for sure not more, on every benchmark.
    max_vqa_loss: sort of questions -> by how much the share of right answers may be worse; for sure not more.
    max_slowdown: share by which an answer may take longer; None: speed is not asked for.
    resamples, confidence_level: of the bootstrap, which draws whole images.
    """

    mode: Literal["full", "adaptive"] = Field(description=f"{FULL} or {ADAPTIVE}")
    gains: tuple[Metric, ...] = Field(min_length=1)
    max_loss: dict[Metric, float]
    max_vqa_loss: dict[Scoring, float]
    max_slowdown: float | None = Field(ge=0)
    resamples: int = Field(ge=100)
    confidence_level: float = Field(gt=0.5, lt=1)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the table that a decision comes with. subject: a benchmark, stage or model.

    left_out: it stands in nobody's way, and nobody should overlook it: data that the challenger was not trained on.
    """

    subject: str
    rule: str
    found: str
    passed: bool
    left_out: bool = False


@dataclass(frozen=True, kw_only=True)
class PairedSamples:
    """Tables of `SAMPLES_SCHEMA`: what challenger and champion answered in the compared mode."""

    benchmark: str
    codebook_size: int
    challenger: pd.DataFrame
    champion: pd.DataFrame


def compare_with_champion(rules: PromotionRules, pairs: Sequence[PairedSamples]) -> list[Finding]:
    """Every rule on every benchmark. An equal challenger gains nothing and is refused."""
    findings: list[Finding] = []
    gained = []
    for pair in pairs:
        try:
            board = _scoreboard(rules, pair)
        except ValueError:
            findings.append(other_samples(pair.benchmark))
            continue
        improvement = {
            metric: _improvement(board, metric, rules.mode) for metric in {*rules.gains, *rules.max_loss}
        }
        gained += [f"{pair.benchmark}: {metric}" for metric in rules.gains if improvement[metric].low > 0]
        findings += [
            loss_finding(pair.benchmark, name, improvement[name], most)
            for name, most in rules.max_loss.items()
        ]
    findings.append(
        Finding(
            subject="all benchmarks",
            rule=f"better for sure in one of {', '.join(rules.gains)}",
            found=", ".join(gained) or "in none",
            passed=bool(gained),
        )
    )
    return findings


def compare_with_baselines(rules: PromotionRules, metrics: BenchmarkMetrics) -> list[Finding]:
    """What a first champion has to show: a gIoU above every trivial baseline's, for sure."""
    return [
        Finding(
            subject=metrics.benchmark,
            rule=f"gIoU above the baseline {one.reference}",
            found=_signed(Interval(one.difference.value, one.difference.low, one.difference.high)),
            passed=one.better,
        )
        for one in metrics.comparisons
        if (one.system, one.mode) == (metrics.challenger, rules.mode) and one.reference in metrics.baselines
    ]


def _scoreboard(rules: PromotionRules, pair: PairedSamples) -> Scoreboard:
    """Raises ValueError where the two were not measured on the same samples."""
    both = [pair.challenger.assign(system=CHALLENGER), pair.champion.assign(system=CHAMPION)]
    return Scoreboard(
        pd.concat(both),
        resamples=rules.resamples,
        seed=0,
        level=rules.confidence_level,
        codebook_size=pair.codebook_size,
    )


def _improvement(board: Scoreboard, metric: str, mode: str) -> Interval:
    difference = board.difference(metric, (CHALLENGER, mode), (CHAMPION, mode))
    if metric in SMALLER_IS_BETTER:
        return Interval(-difference.value, -difference.high, -difference.low)
    return difference


def loss_finding(benchmark: str, metric: str, improvement: Interval, most: float) -> Finding:
    """Whether `metric` is for sure not worse by more than `most`."""
    rule = f"{metric} worse by at most {most:g}"
    if math.isnan(improvement.value):
        return Finding(subject=benchmark, rule=rule, found="not defined here", passed=True)
    return Finding(subject=benchmark, rule=rule, found=_signed(improvement), passed=improvement.low >= -most)


def other_samples(benchmark: str) -> Finding:
    return Finding(
        subject=benchmark,
        rule="measured on the samples the champion was measured on",
        found="the benchmark has changed since",
        passed=False,
    )


def _signed(improvement: Interval) -> str:
    return f"{improvement.value:+.3f} [{improvement.low:+.3f}, {improvement.high:+.3f}]"
