"""Pictures people look at: samples with their masks drawn in, and distributions."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alto_models.masks import area, grid, parse_counts, sample
from jobs.formats.raw import RawRow
from jobs.partition_page.histograms import column_histogram
from jobs.preparation.contract_frame import Verdict

TILE = 240  # pixels
CAPTION = 46
COLUMNS = 4
MAX_MASKS = 20
MAX_SHEET_TILES = 12
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


class SampleTiles:
    """Draws a few rows of each group, the same ones whatever the order of reading, as tiles.

    Which ones is decided by a hash of where they come from. Tiles are drawn when they are chosen, so that no
    image is kept.
    """

    def __init__(self, tiles_per_group: int) -> None:
        self._most = tiles_per_group
        self._tiles: dict[str, dict[str, Image.Image]] = {}

    def add(self, group: str, verdicts: list[Verdict]) -> None:
        """Rows of one image, to be shown on one tile."""
        raw = verdicts[0].image.raw
        name = f"{raw.source_file}/{raw.image_id}/{verdicts[0].row.raw.row_id}"
        key = hashlib.sha256(name.encode()).hexdigest()
        tiles = self._tiles.setdefault(group, {})
        if key not in tiles and (len(tiles) < self._most or key < max(tiles)):
            tiles[key] = _tile(verdicts)
            self._trim(group)

    def _trim(self, group: str) -> None:
        tiles = self._tiles[group]
        if len(tiles) > self._most:
            del tiles[max(tiles)]

    def save(self, folder: Path) -> None:
        """One PNG a tile, to be read again."""
        for group, tiles in self._tiles.items():
            (folder / group).mkdir(parents=True)
            for key, tile in tiles.items():
                tile.save(folder / group / f"{key}.png")

    def read(self, folder: Path) -> None:
        """Choose among these tiles and those saved in a folder."""
        for path in sorted(folder.glob("*/*.png")):
            with Image.open(path) as tile:
                self._tiles.setdefault(path.parent.name, {})[path.stem] = tile.convert("RGB")
            self._trim(path.parent.name)

    def groups(self) -> dict[str, list[Image.Image]]:
        """Group -> its tiles, both in a fixed order."""
        return {group: [tiles[key] for key in sorted(tiles)] for group, tiles in sorted(self._tiles.items())}

    def save_sheet(self, path: Path) -> None:
        """The first tiles of the groups as one PNG; nothing where nothing was added."""
        tiles = [tile for tiles in self.groups().values() for tile in tiles][:MAX_SHEET_TILES]
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
        image.draft("RGB", (2 * width, 2 * height))  # no more of a JPEG than a tile shows
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
        lines = [text[:CAPTION_CHARACTERS], text[CAPTION_CHARACTERS:], _meant(first.row.raw)]
    else:
        lines = [first.image.raw.image_id, f"{len(verdicts)} masks"]
    return "\n".join(line[:CAPTION_CHARACTERS] for line in lines)


def _meant(row: RawRow) -> str:
    if row.answers is not None:
        return ", ".join(sorted(set(row.answers.texts)))
    return "no target" if row.no_target else ""


def plot_distributions(manifest: Path, panels: Sequence[tuple[str, str]], path: Path) -> None:
    """Histograms of columns of the manifest. panels: (column, axis title)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        histogram = column_histogram(manifest, column)
        if histogram is not None:
            axes.stairs(histogram.counts, histogram.edges, fill=True, color="#0072B2")
            if histogram.logarithmic:
                axes.set_xscale("log")
        axes.set_xlabel(title)
        axes.set_ylabel("count")
    figure.savefig(path, dpi=80, metadata={"Software": None})
