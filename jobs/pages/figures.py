"""Figures for pages: each function draws on a fresh figure and returns it as SVG and PNG.

Colours are Okabe and Ito's, which colour-blind readers tell apart. Files are the same byte for byte for the
same figures: fixed salt for SVG ids, no date.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8A8F98", "#1F2328"
PNG_DPI = 160

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#B6BBC2",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EB",
    "grid.linewidth": 0.8,
    "xtick.color": "#5A616B",
    "ytick.color": "#5A616B",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "svg.hashsalt": "alto",
    "svg.fonttype": "path",
}

Parameters = ParamSpec("Parameters")


@dataclass(frozen=True)
class Plot:
    """One plot in both formats. alt: what it shows, for those who cannot see it."""

    name: str
    alt: str
    svg: bytes
    png: bytes


def plot(width: float, height: float) -> Any:
    """Decorator: `draw(figure, ...)` fills a figure of that size (inches) and returns its alt text."""

    def decorate(draw: "Callable[Concatenate[Figure, Parameters], str]") -> Callable[Parameters, Plot]:
        @wraps(draw)
        def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Plot:
            import matplotlib
            from matplotlib.figure import Figure

            with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **STYLE}):
                figure = Figure(figsize=(width, height), layout="constrained")
                alt = draw(figure, *args, **kwargs)
                svg, png = io.BytesIO(), io.BytesIO()
                figure.savefig(svg, format="svg", metadata={"Date": None})
                figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
            return Plot(draw.__name__, alt, svg.getvalue(), png.getvalue())

        return drawn

    return decorate
