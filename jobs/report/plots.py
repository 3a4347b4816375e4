"""The report's plots, in colours that colour-blind readers tell apart.

Line style or marker always says the same as colour, so that the plots survive a black-and-white printer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jobs.benchmarking.results import ADAPTIVE, BenchmarkMetrics, LengthPoint
from jobs.pages.figures import BLUE, GREEN, GREY, INK, ORANGE, plot
from jobs.report.labels import MODES, system_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {"altollm_grpo": ("o", BLUE), "altollm_sft": ("D", ORANGE)}


@plot(7.4, 3.6)
def giou_by_system(figure: "Figure", metrics: BenchmarkMetrics) -> str:
    """gIoU of every system with its confidence interval, learned systems above the baselines."""
    axes = figure.subplots()
    shown = [one for one in metrics.systems if one.giou is not None]
    for place, one in enumerate(reversed(shown)):
        assert one.giou is not None
        marker, colour = MARKERS.get(one.system, ("s", GREY))
        value, low, high = 100 * one.giou.value, 100 * one.giou.low, 100 * one.giou.high
        axes.hlines(place, low, high, color=colour, linewidth=2.2)
        filled = colour if one.mode == ADAPTIVE or one.system not in metrics.learned else "white"
        axes.plot(value, place, marker, color=colour, markerfacecolor=filled, markersize=7)
        axes.annotate(
            f"{value:.1f}",
            (high, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
    axes.set_yticks(range(len(shown)), [_run_name(one.system, one.mode) for one in reversed(shown)])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
    axes.set_xlabel(f"gIoU, percent, with {metrics.confidence_level:.0%} interval")
    best = max((one.giou.value for one in shown if one.giou and one.system in metrics.baselines), default=0)
    axes.axvline(100 * best, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    return f"gIoU of {len(shown)} systems; the dashed line is the best trivial baseline."


@plot(5.4, 4.1)
def iou_by_length(
    figure: "Figure", points: Sequence[LengthPoint], benchmarks: Sequence[BenchmarkMetrics]
) -> str:
    """Tokenizer quality for masks cut short, and where the language model's answers lie."""
    axes = figure.subplots()
    lengths = [point.length for point in points]
    for name, style, colour in (("iou", "-", BLUE), ("boundary_iou", "--", GREEN)):
        values = [getattr(point, name) for point in points]
        axes.plot(lengths, values, style, color=colour, linewidth=2, marker=".", markersize=6)
        label = {"iou": "tokenizer IoU", "boundary_iou": "tokenizer boundary IoU"}[name]
        middle = len(points) // 2
        axes.annotate(
            label, (lengths[middle], values[middle]), (4, -13), textcoords="offset points", color=INK
        )
    for benchmark in benchmarks:
        _answers_at_length(axes, benchmark)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, handletextpad=0.3)
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.set_xlabel("mask tokens kept")
    axes.set_ylabel("IoU")
    above = axes.twiny()
    above.set_xlim(axes.get_xlim()[0], axes.get_xlim()[1] * points[-1].bits / points[-1].length)
    above.grid(visible=False)
    above.set_xlabel("bits")
    above.spines["top"].set_visible(False)
    return "IoU and boundary IoU of the tokenizer against tokens and bits; answers of ALToLLM as points."


def _answers_at_length(axes: "Axes", benchmark: BenchmarkMetrics) -> None:
    for one in benchmark.systems:
        if one.system in benchmark.learned and one.mean_length and one.miou:
            marker, colour = MARKERS.get(one.system, ("s", GREY))
            filled = colour if one.mode == ADAPTIVE else "white"
            axes.plot(
                one.mean_length.value,
                one.miou.value,
                marker,
                color=colour,
                markerfacecolor=filled,
                markersize=7,
                linestyle="none",
                label=_run_name(one.system, one.mode),
            )


@plot(5.4, 3.6)
def length_by_complexity(figure: "Figure", samples: pd.DataFrame) -> str:
    """Kept length of adaptive answers against how winding the true outline is."""
    axes = figure.subplots()
    axes.scatter(
        samples["complexity"], samples["length"], s=10, color=BLUE, alpha=0.18, linewidths=0, rasterized=True
    )
    if len(samples) >= 2 * len(QUANTILES):
        edges = np.unique(samples["complexity"].quantile(QUANTILES))
        groups = samples.groupby(pd.cut(samples["complexity"], edges, include_lowest=True), observed=True)
        centre, mean = groups["complexity"].median(), groups["length"].mean()
        axes.plot(centre, mean, "-o", color=INK, linewidth=2, markersize=5, markerfacecolor="white")
        axes.annotate("mean", (centre.iloc[-1], mean.iloc[-1]), (6, 4), textcoords="offset points")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xticks(
        [tick for tick in (0.5, 1, 2, 4, 8, 16, 32) if tick <= max([2.0, *samples["complexity"]]) * 1.3]
    )
    axes.xaxis.set_minor_locator(_no_ticks())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("complexity of the true outline (disc: about 0.8)")
    axes.set_ylabel("mask tokens kept")
    return f"Length of {len(samples)} adaptive answers against complexity of the target."


QUANTILES = np.linspace(0, 1, 7)


@plot(5.4, 2.9)
def length_histogram(figure: "Figure", samples: pd.DataFrame, max_length: int, learned: Sequence[str]) -> str:
    """How often each length is chosen by the adaptive answers of each learned system."""
    axes = figure.subplots()
    hatches = ("", "////")
    for place, system in enumerate(learned):
        lengths = samples.loc[samples["system"] == system, "length"]
        share = (
            100 * np.bincount(lengths, minlength=max_length + 1)[1 : max_length + 1] / max(1, len(lengths))
        )
        _, colour = MARKERS.get(system, ("s", GREY))
        offset = (place - (len(learned) - 1) / 2) * 0.4
        axes.bar(
            np.arange(1, max_length + 1) + offset,
            share,
            width=0.38,
            color=colour if not hatches[place % 2] else "white",
            edgecolor=colour,
            hatch=hatches[place % 2],
            linewidth=0.8,
            label=system_label(system).name,
        )
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("mask tokens kept")
    axes.set_ylabel("percent of answers")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, borderaxespad=0.2)
    return "Share of adaptive answers at each length."


def _run_name(system: str, mode: str) -> str:
    name = system_label(system).name
    return f"{name}, {MODES[mode]}" if mode else name


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
