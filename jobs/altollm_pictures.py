"""Pictures of the ALToLLM stages: training curves and sample answers."""

from collections.abc import Mapping
from textwrap import fill
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alto_models.altollm.evaluation import Evaluation, HeldOut, evenly_spaced
from alto_models.data.shards import Picture
from jobs.runner.context import StageContext

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Mask = NDArray[np.bool_]
_SHOWN = 8
_COLUMNS = 4


def save_curves(context: StageContext) -> None:
    """pictures/curves.png: every logged figure over the steps."""
    pyplot = _pyplot()
    points = list(context.metric_log.read())
    names = sorted({name for point in points for name in point.values})
    figure, axes = pyplot.subplots(1, len(names), figsize=(3.2 * len(names), 2.6), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        shown = [(point.step, point.values[name]) for point in points if name in point.values]
        axis.plot(*zip(*shown, strict=True))
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
    _save(figure, context, "curves.png")


def save_samples(context: StageContext, held_out: HeldOut, evaluation: Evaluation) -> None:
    """pictures/samples.png: evenly spaced questions with the true outline (white) and the answer (magenta)."""
    pyplot = _pyplot()
    chosen = [evaluation.asked[place] for place in evenly_spaced(len(evaluation.asked), _SHOWN)]
    rows = -(-len(chosen) // _COLUMNS)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=(3 * _COLUMNS, 3.2 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, asked in zip(axes.flat, chosen, strict=False):
        _show(axis, held_out.images[asked.question.image_index].image, asked.question.target, asked.mask)
        said = f"{asked.answer.length} codes, IoU {asked.overlap.iou:.2f}"
        axis.set_title(
            f"{asked.question.expression}\n{'no such object' if asked.answer.no_target else said}", fontsize=8
        )
    _save(figure, context, "samples.png")


def save_progress(context: StageContext, held_out: HeldOut, masks_by_step: Mapping[int, list[Mask]]) -> None:
    """pictures/progress.png: the answers (magenta) to the same questions as training goes on, a row a step."""
    pyplot = _pyplot()
    columns, rows = len(held_out.questions), len(masks_by_step)
    figure, axes = pyplot.subplots(rows, columns, figsize=(2 * columns, 2.1 * rows), squeeze=False)
    for line, (step, masks) in zip(axes, masks_by_step.items(), strict=True):
        for axis, question, mask in zip(line, held_out.questions, masks, strict=True):
            _show(axis, held_out.images[question.image_index].image, question.target, mask)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(f"step {step}", fontsize=8)
    for axis, question in zip(axes[0], held_out.questions, strict=True):
        axis.set_title(fill(question.expression, 28), fontsize=7)
    _save(figure, context, "progress.png")


def _show(axis: "Axes", picture: Picture, target: Mask, mask: Mask) -> None:
    """Target outlined in white, mask in magenta."""
    shown = picture.astype(np.float32) / 255
    shown[mask] = 0.5 * shown[mask] + 0.5 * np.array([1.0, 0.0, 1.0], dtype=np.float32)
    axis.imshow(shown)
    if target.any():
        axis.contour(target, levels=[0.5], colors="white", linewidths=1.2)


def _pyplot() -> ModuleType:
    """Drawing to files only; imported where it is needed, as it takes its time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: "Figure", context: StageContext, name: str) -> None:
    folder = context.output / "pictures"
    folder.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / name, dpi=90, metadata={"Software": None})
    _pyplot().close(figure)
