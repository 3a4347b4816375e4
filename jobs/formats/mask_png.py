"""Masks stored as PNG: black outside, white inside, of any depth a PNG can have."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alto_models import masks as mask_arithmetic
from jobs.formats.raw import ProblemError, read_bytes

PIXEL_LIMIT = 100_000_000
WHITE = {8: 255, 16: 65535}


def read_mask_png(path: Path) -> dict[str, Any]:
    """COCO segmentation of the white pixels, which are those from half white on (edges may be antialiased).

    Raises ProblemError "mask_readable" where the file is missing, damaged or shows no black and white:
    coloured, transparent, or numbered by class with nothing as bright as half white.
    """
    data = read_bytes(path, "mask_readable")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise ValueError(f"{image.width} x {image.height} pixels")
            grey, white = _grey(image)
        brightest = int(grey.max())
        if 0 < brightest <= white // 2:
            raise ValueError(f"brightest pixel {brightest} of {white}; black and white expected")
        rle = mask_arithmetic.encode(grey > white // 2)
    except Exception as error:  # decoders raise nearly anything for damaged bytes
        raise ProblemError("mask_readable", f"{path.name}: {error}") from None
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def _grey(image: Image.Image) -> tuple[NDArray, int]:
    """(H, W) grey values and what white is among them. Raises ValueError where the picture is not grey."""
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")), WHITE[8]
    if image.mode.startswith("I"):
        return np.asarray(image), WHITE[16]
    pixels = np.asarray(image.convert("RGBA"))
    if (pixels[..., 3] < WHITE[8]).any():
        raise ValueError(f"mode {image.mode} with transparent pixels; black and white expected")
    if (pixels[..., :3] != pixels[..., :1]).any():
        raise ValueError(f"mode {image.mode} with colours; black and white expected")
    return pixels[..., 0], WHITE[8]
