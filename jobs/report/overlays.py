"""Pictures of single samples: the image, the truth and the prediction, side by side."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from alto_models import masks
from alto_models.masks import Rle
from jobs.report.labels import REASONS

PANEL = 200  # longer side of one panel, pixels
GAP = 6
TRUTH_COLOUR = (0, 114, 178)
PREDICTION_COLOUR = (213, 94, 0)
OPACITY = 0.62
HATCH = 5  # pixels between the lines over what is ignored
FADE = 0.45  # how far the picture around a mask fades to white
SHEET_COLUMNS = 3
SHEET_TILE = 312  # pixels
LUMINANCE = np.array([0.299, 0.587, 0.114])

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One answer with its picture. fields: its row of the sample table."""

    picture: bytes
    fields: dict[str, Any]


def sample_panels(
    image: bytes, target_counts: str | None, predicted_counts: str | None, ignore_counts: str | None = None
) -> bytes:
    """PNG of image, truth and prediction, as `mask_panels` draws them."""
    return mask_panels(
        image, ((target_counts, TRUTH_COLOUR), (predicted_counts, PREDICTION_COLOUR)), ignore_counts
    )


def mask_panels(
    image: bytes, drawn: Sequence[tuple[str | None, tuple[int, int, int]]], ignore_counts: str | None
) -> bytes:
    """PNG of the image, and beside it each mask in its colour; one that is None is empty.

    Masks have the image's own size. Pixels that count neither way are hatched in all of them.
    """
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    scale = PANEL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    enlarged = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    height, width = picture.height, picture.width
    hatched = _resized(ignore_counts, height, width, size) & _hatching(size)
    gap = np.full((size[1], GAP, 3), 255, np.uint8)
    panels = [enlarged]
    for counts, colour in drawn:
        tinted = _tinted(enlarged, _resized(counts, height, width, size), colour)
        panels += [gap, np.where(hatched[..., None], np.uint8(0), tinted)]
    joined = np.concatenate(panels, axis=1)
    return _small_png(Image.fromarray(joined))


def contact_sheet(gallery: Mapping[str, Sequence[Sample]]) -> bytes:
    """PNG of the first samples of each kind with captions, for places that show pictures but no page."""
    tile = (SHEET_TILE, SHEET_TILE // 2)
    sheet = Image.new("RGB", (SHEET_COLUMNS * tile[0], len(gallery) * tile[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (reason, samples) in enumerate(gallery.items()):
        for column, sample in enumerate(samples[:SHEET_COLUMNS]):
            left, top = column * tile[0], row * tile[1]
            said = f"{REASONS[reason].name}: IoU {100 * sample.fields['iou']:.0f} %, {sample.fields['length']} tokens"
            draw.text((left, top), said, fill="black")
            draw.text(
                (left, top + 12), shorten(sample.fields["expression"], 46, placeholder=" …"), fill="black"
            )
            with Image.open(io.BytesIO(sample.picture)) as picture:
                small = picture.convert("RGB")
                small.thumbnail((tile[0] - GAP, tile[1] - 34))
                sheet.paste(small, (left, top + 27))
    return _small_png(sheet)


def _small_png(picture: Image.Image) -> bytes:
    encoded = io.BytesIO()
    picture.quantize(128, method=Image.Quantize.MEDIANCUT).save(encoded, "png", optimize=True)
    return encoded.getvalue()


def _resized(counts: str | None, height: int, width: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    if counts is None:
        return np.zeros(size[::-1], dtype=bool)
    mask = Image.fromarray(masks.decode(Rle(height, width, counts)) * np.uint8(255))
    return np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) >= 128


def _tinted(picture: Picture, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> Picture:
    """The picture in pale grey with the mask in colour, so that only the mask has a hue."""
    grey = np.repeat(picture @ LUMINANCE, 3).reshape(picture.shape)
    pale = grey + FADE * (255 - grey)
    tinted = np.where(mask[..., None], (1 - OPACITY) * grey + OPACITY * np.array(colour), pale)
    tinted[mask & ~_eroded(mask)] = np.array(colour) * 0.6
    return np.round(tinted).astype(np.uint8)


def _hatching(size: tuple[int, int]) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: size[1], : size[0]]
    lines: NDArray[np.bool_] = (rows + columns) % HATCH < 1
    return lines


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
