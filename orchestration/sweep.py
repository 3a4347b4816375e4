"""`alto sweep`: what the runs of `grpo_sweep` say together, quality over length."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_contracts.errors import InputError
from jobs.runner.layout import output_folder, project_root
from jobs.runner.lineage import Lineage, read_lineage
from orchestration.atomic_folders import require_new

if TYPE_CHECKING:
    from jobs.pages.figures import Plot


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """On the val split, adaptive prompts: what GRPO with one weight of the length made of the same start."""

    length_weight: float
    start_giou: float
    start_mean_length: float
    giou: float
    mean_length: float


def sweep(
    out: Annotated[Path, typer.Argument(help="New PNG or SVG file for the curve.")],
) -> None:
    """Draw gIoU over length for every finished run of grpo_sweep, and print the points."""
    require_new(out)
    if out.suffix not in (".png", ".svg"):
        raise InputError(f"{out}: the curve is drawn as .png or .svg")
    points = read_points(project_root())
    drawn = draw(points)
    out.write_bytes(drawn.png if out.suffix == ".png" else drawn.svg)
    print(f"{'length weight':>14}{'giou':>9}{'mean length':>14}")
    for point in points:
        print(f"{point.length_weight:>14g}{point.giou:>9.4f}{point.mean_length:>14.2f}")


def read_points(root: Path) -> list[SweepPoint]:
    """Raises InputError where no run of the sweep is there."""
    points = found_points(read_lineage(root))
    if not points:
        raise InputError(
            "no run of grpo_sweep yet: list grpo_sweep.length_weights in partitions.yaml, then `dvc repro`"
        )
    return points


def found_points(lineage: Lineage) -> list[SweepPoint]:
    """Of the listed weights whose output is there, the smallest first."""
    points = []
    for address in lineage.stage("grpo_sweep").addresses:
        report = lineage.root / output_folder(lineage.profile, address) / "report.json"
        if report.is_file():
            figures = json.loads(report.read_text())["figures"]
            points.append(
                SweepPoint(
                    length_weight=figures["length_weight"],
                    start_giou=figures["before_giou"],
                    start_mean_length=figures["before_mean_length"],
                    giou=figures["after_giou"],
                    mean_length=figures["after_mean_length"],
                )
            )
    return sorted(points, key=lambda point: point.length_weight)


def draw(points: Sequence[SweepPoint]) -> "Plot":
    """The curve from the smallest weight to the largest, and the fine-tuned model that all runs began with."""
    from matplotlib.figure import Figure

    from jobs.pages.figures import BLUE, GREY, plot

    @plot(5.4, 3.6)
    def giou_by_mean_length(figure: Figure) -> str:
        axes = figure.subplots()
        lengths, values = [point.mean_length for point in points], [100 * point.giou for point in points]
        axes.plot(lengths, values, "o-", color=BLUE, linewidth=2, markersize=6)
        for point, length, value in zip(points, lengths, values, strict=True):
            axes.annotate(f"{point.length_weight:g}", (length, value), (5, 5), textcoords="offset points")
        start = points[0]
        axes.plot(start.start_mean_length, 100 * start.start_giou, "D", color=GREY, markersize=7)
        axes.annotate(
            "fine-tuned",
            (start.start_mean_length, 100 * start.start_giou),
            (5, -12),
            textcoords="offset points",
        )
        axes.margins(x=0.12, y=0.15)
        axes.set_xlabel("mean length of an answer, mask tokens")
        axes.set_ylabel("gIoU, percent")
        axes.set_title("GRPO by the weight of length in its reward")
        return f"gIoU over mean length for {len(points)} weights of the length in the reward."

    return giou_by_mean_length()
