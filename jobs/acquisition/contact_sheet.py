"""A picture of sample scenes, their targets marked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

TILE = 240  # pixels
CAPTION = 30
COLUMNS = 4
MAX_TILES = 12
_MARK = np.array([255, 0, 255], dtype=np.uint8)


class ContactSheet:
    """Collects up to `MAX_TILES` captioned images and writes them as one PNG."""

    def __init__(self) -> None:
        self._tiles: list[Image.Image] = []

    @property
    def full(self) -> bool:
        return len(self._tiles) >= MAX_TILES

    def add(self, image: np.ndarray, masks: Sequence[np.ndarray], caption: str) -> None:
        """image (H, W, 3) uint8; masks (H, W) bool are outlined."""
        picture = image.copy()
        for mask in masks:
            picture[ndimage.binary_dilation(mask, iterations=2) & ~mask] = _MARK
        tile = Image.new("RGB", (TILE, TILE + CAPTION), "white")
        height, width = image.shape[:2]
        scale = TILE / max(height, width)
        scaled = Image.fromarray(picture).resize((round(width * scale), round(height * scale)))
        tile.paste(scaled, ((TILE - scaled.width) // 2, (TILE - scaled.height) // 2))
        font = ImageFont.load_default(11)
        ImageDraw.Draw(tile).multiline_text((4, TILE + 2), _two_lines(caption), fill="black", font=font)
        self._tiles.append(tile)

    def save(self, path: Path) -> None:
        """Write the sheet; nothing where no image was added."""
        if not self._tiles:
            return
        columns = min(COLUMNS, len(self._tiles))
        rows = -(-len(self._tiles) // columns)
        sheet = Image.new("RGB", (columns * TILE, rows * (TILE + CAPTION)), "white")
        for number, tile in enumerate(self._tiles):
            sheet.paste(tile, (number % columns * TILE, number // columns * (TILE + CAPTION)))
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)


def _two_lines(caption: str) -> str:
    words = caption.split()
    half = next((n for n in range(1, len(words)) if len(" ".join(words[: n + 1])) > 40), len(words))
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])
