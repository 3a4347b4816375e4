"""The page's plots."""

from collections import Counter
from typing import TYPE_CHECKING

from jobs.pages.figures import BLUE, plot
from jobs.partition_page.histograms import Histogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CATEGORIES_SHOWN = 20
NAME_CHARACTERS = 28


@plot(3.6, 2.5)
def distribution(figure: "Figure", histogram: Histogram, title: str, unit: str) -> str:
    """How often which value occurs. title: of what; unit: what is counted."""
    axes = figure.subplots()
    axes.stairs(histogram.counts, histogram.edges, fill=True, color=BLUE)
    if histogram.logarithmic:
        axes.set_xscale("log")
    axes.set_title(title)
    axes.set_ylabel(unit)
    low, high = histogram.edges[0], histogram.edges[-1]
    return f"Distribution of {title} over {histogram.counts.sum():g} {unit}, from {low:.4g} to {high:.4g}."


@plot(7.4, 4.2)
def categories(figure: "Figure", counts: Counter[str], unit: str) -> str:
    """The most frequent categories."""
    axes = figure.subplots()
    # Ties in the order of their names, not of their reading.
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CATEGORIES_SHOWN]
    # matplotlib would read a pair of dollar signs as a formula.
    names = [name[:NAME_CHARACTERS].replace("$", r"\$") for name, _ in reversed(shown)]
    axes.barh(range(len(shown)), [count for _, count in reversed(shown)], color=BLUE)
    axes.set_yticks(range(len(shown)), names)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(unit)
    axes.set_title(f"Categories: {len(shown)} of {len(counts)}")
    return f"{unit} of the {len(shown)} most frequent of {len(counts)} categories."
