"""Fills the page's template. Everything is inside the one file: styles, plots and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from jobs.benchmarking.results import (
    ADAPTIVE,
    BenchmarkMetrics,
    Comparison,
    Estimate,
    Slice,
    SystemMetrics,
    TokenizerMetrics,
)
from jobs.benchmarking.vqa_results import VqaMetrics
from jobs.pages.figures import Plot
from jobs.pages.template import page_environment
from jobs.report.labels import DIMENSIONS, MODES, REASONS, system_label
from jobs.report.overlays import Sample, sample_panels
from jobs.report.peers import PEERS
from jobs.report.verdicts import Contest, baseline_verdict, coverage, lost_contests, reinforcement_verdict

NOT_DEFINED = "–"
# Of the official figures of question sets: factor, and what that gives.
SCALES = {"pope": (100, "percent"), "vqav2": (1, "percent"), "mme": (1, "points")}


@dataclass(frozen=True)
class SliceRow:
    """One part of the samples: learned systems and the best trivial baseline on it."""

    value: str
    samples: int
    giou: list[float]
    best_baseline: float
    best_baseline_name: str
    mean_length: float | None


@dataclass(frozen=True)
class BenchmarkSection:
    metrics: BenchmarkMetrics
    plots: list[Plot]
    gallery: dict[str, list[Sample]]

    @property
    def coverage(self) -> str:
        return coverage(self.metrics)

    @property
    def limited(self) -> bool:
        return self.metrics.images < self.metrics.images_available

    @property
    def challenger(self) -> SystemMetrics | None:
        return self.metrics.find(self.metrics.challenger, ADAPTIVE)

    @property
    def learned(self) -> list[SystemMetrics]:
        return [one for one in self.metrics.systems if one.system in self.metrics.learned]

    @property
    def trivial(self) -> list[SystemMetrics]:
        return [one for one in self.metrics.systems if one.system in self.metrics.baselines]

    @property
    def best_baseline(self) -> SystemMetrics:
        return max(self.trivial, key=lambda one: one.giou.value if one.giou else 0.0)

    @property
    def progress(self) -> list[SystemMetrics]:
        """Adaptive answers of the untrained model, of the starting point and of the challenger."""
        order = ("untrained", self.metrics.starting_point, self.metrics.challenger)
        found = [self.metrics.find(system, ADAPTIVE) for system in order if system is not None]
        return [one for one in found if one is not None]

    @property
    def reinforcement(self) -> str:
        return reinforcement_verdict(self.metrics)

    def comparison(self, run: SystemMetrics, reference: SystemMetrics) -> Comparison:
        wanted = (run.system, run.mode, reference.system, reference.mode)
        return next(
            one
            for one in self.metrics.comparisons
            if (one.system, one.mode, one.reference, one.reference_mode) == wanted
        )

    def slice_table(self, dimension: str) -> list[SliceRow]:
        """Rows in the order of their values; adaptive answers of the learned systems."""
        parts = [one for one in self.metrics.slices if one.dimension == dimension]
        return [self._slice_row(value, parts) for value in dict.fromkeys(part.value for part in parts)]

    def _slice_row(self, value: str, parts: Sequence[Slice]) -> SliceRow:
        here = [part for part in parts if part.value == value]
        learned = {part.system: part for part in here if part.mode == ADAPTIVE}
        best = max((part for part in here if part.system in self.metrics.baselines), key=lambda p: p.giou)
        return SliceRow(
            value=value,
            samples=best.samples,
            giou=[learned[system].giou for system in self.metrics.learned],
            best_baseline=best.giou,
            best_baseline_name=system_label(best.system).name,
            mean_length=learned[self.metrics.challenger].mean_length,
        )


@dataclass(frozen=True)
class ReportPage:
    """Everything the page shows. scope: what the profile's figures do and do not mean."""

    scope: str
    tokenizer: TokenizerMetrics
    tokenizer_plot: Plot
    sections: list[BenchmarkSection]
    question_sets: list[VqaMetrics]
    contests: list[Contest]

    def render(self) -> str:
        return (
            report_environment()
            .get_template("page.html.j2")
            .render(
                page=self,
                verdict=baseline_verdict(self.contests),
                lost=lost_contests(self.contests),
                all_won=bool(self.contests) and all(contest.won for contest in self.contests),
                peers=PEERS,
                coverage=coverage,
                scales=SCALES,
                dimensions=DIMENSIONS,
                reasons=REASONS,
                modes=MODES,
                slot=slot,
            )
        )


def report_environment(*packages: str) -> Environment:
    """Environment of the templates here and in `packages`, with what they show figures by."""
    environment = page_environment(*packages, "jobs.report")
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "number": number,
        "system": lambda name: system_label(name).name,
        "explain": lambda name: system_label(name).explanation,
    }
    return environment


def slot(name: str) -> Markup:
    """A place where the whole report (orchestration/report) puts what belongs to no hash."""
    return Markup("<!-- slot: {} -->").format(name)


def gallery_samples(gallery: pd.DataFrame) -> dict[str, list[Sample]]:
    """Reason -> samples in their order, from a table of `GALLERY_SCHEMA`."""
    found: dict[str, list[Sample]] = {}
    for row in gallery.to_dict("records"):
        fields = row["sample"]
        counts = (fields[f"{name}_counts"] for name in ("target", "predicted", "ignore"))
        picture = sample_panels(row["image"], *counts)
        found.setdefault(row["reason"], []).append(Sample(picture, fields))
    return found


def percent(figure: Estimate | float | None) -> str:
    """A share in percent with one decimal."""
    value = figure.value if isinstance(figure, Estimate) else figure
    return NOT_DEFINED if value is None else f"{100 * value:.1f}"


def interval(figure: Estimate | None) -> str:
    """The confidence interval of a share, in percent."""
    return "" if figure is None else f"{100 * figure.low:.1f} to {100 * figure.high:.1f}"


def number(figure: Estimate | float | None) -> str:
    """A count or mean with one decimal."""
    value = figure.value if isinstance(figure, Estimate) else figure
    return NOT_DEFINED if value is None else f"{value:.1f}"
