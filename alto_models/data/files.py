"""Image and mask files of people: read with every check, masks as PNG.

EXIF orientation is not applied, here as anywhere: a mask lies on the stored pixels.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from alto_models.data.shards import Picture
from data_contracts.errors import InputError, first_line

# Images are padded to squares in memory: 200 MB for one of this side, whatever its other side is.
MAX_SIDE = 8192
IMAGE_FORMATS = ("JPEG", "PNG")
IMAGE_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"})
MASK_FORMATS = ("PNG",)
MASK_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16B", "LA", "RGB", "RGBA"})

BoolMask = NDArray[np.bool_]


def read_image(path: Path) -> Picture:
    """(H, W, 3) uint8 RGB of a JPEG or PNG file of 8 bits a channel. Raises InputError."""
    _require_file(path)
    return _as_rgb(_decode(path, str(path), IMAGE_FORMATS), str(path))


def image_of_bytes(data: bytes) -> Picture:
    """As `read_image`, of the contents of a file."""
    return _as_rgb(_decode(io.BytesIO(data), "the image", IMAGE_FORMATS), "the image")


def _as_rgb(image: Image.Image, name: str) -> Picture:
    if image.mode not in IMAGE_MODES:
        raise InputError(f"{name}: pixels of mode {image.mode}; save the image with 8 bits a channel")
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path, threshold: int | None = None) -> BoolMask:
    """(H, W) bool of a PNG file, any bit depth; a palette counts by its indices. Raises InputError.

    A colour file is taken where its channels are equal and nothing is transparent.
    threshold: the lowest level inside the mask; None: levels as in `binary`.
    """
    if threshold is not None and threshold < 1:
        raise InputError(f"threshold is at least 1, as level 0 is outside the mask, got {threshold}")
    _require_file(path)
    image = _decode(path, str(path), MASK_FORMATS)
    if image.mode not in MASK_MODES:
        raise InputError(f"{path}: pixels of mode {image.mode}; save the mask as a grey PNG")
    levels = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        if levels[..., -1].min() < 255:
            raise InputError(f"{path}: the mask has transparent pixels; save it as a grey PNG")
        levels = levels[..., :-1]
    if levels.ndim == 3:
        if (levels != levels[..., :1]).any():
            raise InputError(f"{path}: the mask has colours; save it as a grey PNG of 0 and 255")
        levels = levels[..., 0]
    try:
        return binary(levels if threshold is None else levels >= threshold)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def binary(levels: NDArray) -> BoolMask:
    """(H, W) bool of grey levels (H, W): 0 is outside the mask, and one other level is inside.

    Raises InputError for any other shape or levels: thresholding is for those who know what the levels mean.
    """
    if levels.ndim != 2 or not 0 < min(levels.shape) <= max(levels.shape) <= MAX_SIDE:
        raise InputError(f"a mask needs two sides of 1 to {MAX_SIDE} pixels, got shape {levels.shape}")
    inside = levels != 0
    values = levels[inside]
    if values.size and (values != values[0]).any():
        raise InputError(
            f"the mask has grey levels from {levels.min()} to {levels.max()}, but needs 0 and one other: "
            "state a threshold"
        )
    return inside


def encode_mask(mask: BoolMask) -> bytes:
    """8-bit grey PNG of 0 and 255 of an (H, W) mask."""
    data = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(data, "PNG")
    return data.getvalue()


def _require_file(path: Path) -> None:
    if not os.path.isfile(path):  # unlike Path.is_file it also answers for names that cannot exist
        raise InputError(f"{path}: no such file")


def _decode(source: Path | io.BytesIO, name: str, formats: tuple[str, ...]) -> Image.Image:
    """All pixels of a file. Raises InputError where it is no whole image of these formats, or too large."""
    too_large = f"{name}: more than {MAX_SIDE} pixels a side; scale it down first"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=formats) as image:
                if max(image.size) > MAX_SIDE:
                    raise InputError(too_large)
                image.load()
                return image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(too_large) from None
    except UnidentifiedImageError:  # it says no more, and where in memory the bytes were
        raise InputError(f"{name}: not a whole {' or '.join(formats)} file") from None
    except Exception as error:  # decoders raise nearly anything for damaged bytes
        raise InputError(f"{name}: not a whole {' or '.join(formats)} file ({first_line(error)})") from None
