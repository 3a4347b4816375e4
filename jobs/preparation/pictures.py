"""Pictures people look at: samples with their masks drawn in, and distributions."""

import hashlib
import heapq
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from alto_models.masks import area, grid, parse_counts, sample
from jobs.preparation.contract_frame import Verdict

TILE = 240  # pixels
CAPTION = 46
COLUMNS = 4
MAX_MASKS = 20
MAX_SAMPLES = 12
CAPTION_CHARACTERS = 42
# Okabe and Ito's colours, told apart by colour-blind people.
COLOURS = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ],
    np.float32,
)


class SampleSheet:
    """Keeps a few rows, the same ones whatever the order of reading, and draws them as tiles of one PNG."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, int, list[Verdict]]] = []
        self._added = 0

    def add(self, verdicts: list[Verdict]) -> None:
        """Rows of one image, to be shown on one tile."""
        name = f"{verdicts[0].image.raw.source_file}/{verdicts[0].row.raw.row_id}"
        key = -int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        self._added += 1
        heapq.heappush(self._kept, (key, self._added, verdicts))
        if len(self._kept) > MAX_SAMPLES:
            heapq.heappop(self._kept)

    def save(self, path: Path) -> None:
        """Nothing is written where nothing was added."""
        tiles = [_tile(verdicts) for _, _, verdicts in sorted(self._kept, key=lambda kept: -kept[0])]
        if not tiles:
            return
        columns = min(COLUMNS, len(tiles))
        rows = -(-len(tiles) // columns)
        sheet = Image.new("RGB", (columns * TILE, rows * (TILE + CAPTION)), "white")
        for number, tile in enumerate(tiles):
            sheet.paste(tile, (number % columns * TILE, number // columns * (TILE + CAPTION)))
        sheet.save(path)


def _tile(verdicts: list[Verdict]) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE + CAPTION), "white")
    image = verdicts[0].image
    if image.size is not None:
        tile.paste(_drawn(verdicts, image.raw.data, image.size))
    font = ImageFont.load_default(11)
    ImageDraw.Draw(tile).multiline_text((4, TILE + 2), _caption(verdicts), fill="black", font=font)
    return tile


def _drawn(verdicts: list[Verdict], data: bytes, size: tuple[int, int]) -> Image.Image:
    scale = TILE / max(size)
    width, height = (max(1, round(side * scale)) for side in size)
    with Image.open(io.BytesIO(data)) as image:
        picture = np.asarray(image.convert("RGB").resize((width, height)), np.float32).copy()
    masks = [parse_counts(mask.rle.counts) for v in verdicts for mask in v.row.masks if mask.rle is not None]
    for number, runs in enumerate(sorted(masks, key=area, reverse=True)[:MAX_MASKS]):
        covered = sample(runs, size[1], size[0], grid(0, size[1], height), grid(0, size[0], width))
        picture[covered] = 0.45 * picture[covered] + 0.55 * COLOURS[number % len(COLOURS)]
    return Image.fromarray(picture.astype(np.uint8))


def _caption(verdicts: list[Verdict]) -> str:
    first = verdicts[0]
    if first.rule is not None:
        lines = [first.rule.name, first.value, first.image.raw.source_file]
    elif first.row.raw.expressions:
        text = " / ".join(first.row.raw.expressions)
        lines = [text[:CAPTION_CHARACTERS], text[CAPTION_CHARACTERS:], "" if first.row.masks else "no target"]
    else:
        lines = [first.image.raw.image_id, f"{len(verdicts)} masks"]
    return "\n".join(line[:CAPTION_CHARACTERS] for line in lines)


def plot_distributions(frame: pd.DataFrame, panels: Sequence[tuple[str, str]], path: Path) -> None:
    """Histograms of frame columns. panels: (column, axis title)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        values = frame[column].dropna()
        positive = values[values > 0]
        bins: int | np.ndarray = 30
        if len(positive) and positive.max() > 100 * positive.min():
            bins = np.geomspace(positive.min(), positive.max(), 30)
            axes.set_xscale("log")
            values = positive
        axes.hist(values, bins=bins, color="#0072B2")
        axes.set_xlabel(title)
        axes.set_ylabel("count")
    figure.savefig(path, dpi=80, metadata={"Software": None})
