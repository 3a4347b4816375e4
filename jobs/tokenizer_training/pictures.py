"""Pictures of the tokenizer's stages: training curves, sample strips, quality against length."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from alto_models.tokenizer.evaluation import View
from alto_models.tokenizer.interface import Tokenizer
from alto_models.tokenizer.prefixes import decode_prefixes
from jobs.runner.metric_log import MetricPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE = 128
CAPTION = 14
DPI = 110
WRONG = (214, 94, 0)  # predicted, not in the mask
MISSED = (0, 114, 178)  # in the mask, not predicted
RIGHT = (240, 240, 240)


def save_curves(points: Iterable[MetricPoint], names: Sequence[str], path: Path) -> None:
    """One small plot for each named figure against steps; figures that were never logged are left out."""
    curves: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    for point in points:
        for name in curves.keys() & point.values.keys():
            curves[name][0].append(point.step)
            curves[name][1].append(point.values[name])
    shown = {name: curve for name, curve in curves.items() if curve[0]}
    if not shown:
        return
    figure, axes = _figure(columns=len(shown))
    for axis, (name, (steps, values)) in zip(axes, shown.items(), strict=True):
        axis.plot(steps, values)
        axis.set_title(name.replace("_", " "))
        axis.set_xlabel("step")
    _save(figure, path)


def save_lines(
    path: Path,
    x_label: str,
    y_label: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    points: Mapping[str, tuple[float, float]],
) -> None:
    """Named lines, and single named points, in one plot."""
    figure, (axis,) = _figure(columns=1)
    for name, (x, y) in lines.items():
        axis.plot(x, y, marker="o", label=name)
    for name, point in points.items():
        axis.plot([point[0]], [point[1]], marker="*", markersize=12, linestyle="none", label=name)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.legend()
    _save(figure, path)


def save_scatter(
    path: Path, x_label: str, y_label: str, x: NDArray[np.number], y: NDArray[np.number]
) -> None:
    figure, (axis,) = _figure(columns=1)
    axis.scatter(x, y, s=6, alpha=0.4)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    _save(figure, path)


@torch.no_grad()
def save_strips(model: Tokenizer, views: Sequence[View], lengths: Sequence[int], path: Path) -> None:
    """One row a view, of its first mask: image, mask, reconstruction at each length and the chosen length.

    Right pixels are white, missed ones blue, wrong ones orange.
    """
    rows = [_strip(model, view, lengths) for view in views]
    Image.fromarray(np.concatenate(rows)).save(path)


def _strip(model: Tokenizer, view: View, lengths: Sequence[int]) -> NDArray[np.uint8]:
    mask = view.masks[:1]
    device = model.device
    encoding = model.encode(mask.to(device))
    chosen = int(encoding.length)
    asked = torch.tensor([*lengths, chosen], device=device)
    embedding = model.encode_image(view.image.unsqueeze(0).to(device))
    decoded = (decode_prefixes(model, encoding.codes, embedding, asked)[0] > 0).cpu()
    target = mask[0, 0].numpy() > 0.5
    pixels = (view.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    tiles = [_tile(pixels, view.kind), _tile(_compared(target, target), "mask")]
    captions = [*(f"{length} codes" for length in lengths), f"chosen: {chosen}"]
    for caption, prediction in zip(captions, decoded.numpy(), strict=True):
        tiles.append(_tile(_compared(prediction, target), caption))
    return np.concatenate(tiles, axis=1)


def _compared(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> NDArray[np.uint8]:
    colours = np.zeros((*target.shape, 3), np.uint8)
    colours[prediction & target] = RIGHT
    colours[prediction & ~target] = WRONG
    colours[~prediction & target] = MISSED
    return colours


def _tile(pixels: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    tile = Image.new("RGB", (TILE + 4, TILE + CAPTION + 4), (255, 255, 255))
    picture = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)
    tile.paste(picture, (2, CAPTION + 2))
    ImageDraw.Draw(tile).text((3, 1), caption, fill=(30, 30, 30))
    return np.asarray(tile)


def _figure(columns: int) -> tuple["Figure", Sequence["Axes"]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * columns + 1, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, columns, column + 1) for column in range(columns)]


def _save(figure: "Figure", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
