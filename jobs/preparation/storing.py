"""The form images and their masks are stored in: the published file, or encoded anew at a training resolution."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from alto_models import masks as mask_arithmetic
from alto_models.masks import Rle
from jobs.formats.raw import ProblemError
from jobs.preparation.measuring import MeasuredImage, MeasuredMask, MeasuredRow, StoredImage
from jobs.preparation.settings import ImagesConfig


def with_stored_form(image: MeasuredImage, settings: ImagesConfig) -> MeasuredImage:
    """The image with its stored form, its usable masks scaled to it.

    A mask that has no pixel left has `stored_area` 0, which its contract refuses. Images that cannot be
    used, and settings that keep the published file, change nothing.
    """
    if settings.encoding == "original" or image.size is None or image.problem is not None:
        return image
    width, height = stored_size(image.size, settings.max_side)
    try:
        data = _encoded(image.raw.data, (width, height), settings)
    except Exception as error:  # encoders raise nearly anything, as decoders do
        refusal = ProblemError("image_decodes", f"cannot be stored as {settings.encoding}: {error}")
        return replace(image, problem=refusal.problem)
    rows = image.rows
    if (width, height) != image.size:
        rows = tuple(_scaled_row(row, width, height) for row in rows)
    return replace(image, rows=rows, stored=StoredImage(data=data, width=width, height=height))


def stored_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(width, height) with the longer side at most max_side; never enlarged, never empty."""
    scale = min(1.0, max_side / max(size)) if max_side is not None else 1.0
    width, height = (max(1, round(side * scale)) for side in size)
    return width, height


def _encoded(data: bytes, size: tuple[int, int], settings: ImagesConfig) -> bytes:
    """RGB pixels as readers of the published file see them, without orientation or colour profile."""
    with Image.open(io.BytesIO(data)) as image:
        picture = image.convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    # Pixels alone: Pillow would carry comments and profiles over.
    picture, file = Image.fromarray(np.asarray(picture)), io.BytesIO()
    picture.save(
        file, settings.encoding, **({} if settings.encoding == "png" else {"quality": settings.quality})
    )
    return file.getvalue()


def _scaled_row(row: MeasuredRow, width: int, height: int) -> MeasuredRow:
    raw = row.raw
    if raw.ignore is not None:
        raw = replace(raw, ignore=_scaled(raw.ignore, width, height))
    return replace(row, raw=raw, masks=tuple(_scaled_mask(mask, width, height) for mask in row.masks))


def _scaled_mask(mask: MeasuredMask, width: int, height: int) -> MeasuredMask:
    if mask.rle is None:
        return mask
    rle = _scaled(mask.rle, width, height)
    area = mask_arithmetic.area(mask_arithmetic.parse_counts(rle.counts))
    return replace(mask, stored_rle=rle, values=mask.values | {"stored_area": area})


def _scaled(rle: Rle, width: int, height: int) -> Rle:
    runs = mask_arithmetic.parse_counts(rle.counts)
    return mask_arithmetic.shrink_runs(runs, rle.height, rle.width, height, width)
