"""Plots of the whole report: training curves, one small plot a figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq

from jobs.pages.figures import BLUE, plot
from jobs.training_curves import CURVES_FILE, STEP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jobs.pages.figures import Plot

COLUMNS = 4
# In the order they are shown in; what is not listed comes last, under its own name.
TITLES = {
    "reward": "reward",
    "iou": "IoU of sampled answers",
    "mean_length": "length, adaptive prompts",
    "mean_full_length": "length, full-length prompts",
    "kl": "KL to the start",
    "malformed": "malformed answers, share",
    "loss": "loss",
    "token_accuracy": "accuracy of next tokens",
    "sampled_giou": "gIoU of a few val answers",
    "dice": "Dice loss",
    "bce": "binary cross-entropy",
    "quantizer": "quantiser loss",
    "expected_length": "expected length, tokens",
    "codebook_usage": "codebook used, share",
    "left_out": "records left out, share",
    "gradient_norm": "gradient norm",
}


def training_curves(folder: Path) -> "Plot | None":
    """Every figure in a training stage's output over the steps; None where its curves are not here."""
    path = folder / CURVES_FILE
    if not path.is_file():
        return None
    curves = pq.read_table(path).to_pandas().set_index(STEP).dropna(axis="columns", how="all")
    return draw_curves(curves) if len(curves.columns) else None


def draw_curves(curves: pd.DataFrame) -> "Plot":
    """curves: a column a figure, indexed by steps; NaN where a figure was not logged."""
    order = list(TITLES)
    names = sorted(
        curves.columns, key=lambda name: (order.index(name) if name in TITLES else len(order), name)
    )
    rows = -(-len(names) // COLUMNS)

    @plot(11.0, 2.0 * rows)
    def training_curves(figure: "Figure") -> str:
        axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
        told = []
        for axis in axes[len(names) :]:
            axis.set_axis_off()
        for axis, name in zip(axes, names, strict=False):
            curve = curves[name].dropna()
            title = TITLES.get(name, name.replace("_", " "))
            axis.plot(curve.index, curve, color=BLUE, linewidth=1.6)
            axis.set_title(title, fontweight="normal")
            axis.margins(x=0.02)
            axis.locator_params(nbins=4)
            told.append(f"{title} {curve.iloc[0]:.3g} to {curve.iloc[-1]:.3g}")
        figure.supxlabel("training steps", fontsize=9)
        return f"From the first to the last of {len(curves)} points, {curves.index[-1]} steps: {'; '.join(told)}."

    return training_curves()
