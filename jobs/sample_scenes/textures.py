"""Backgrounds, colours and fills."""

import numpy as np
from PIL import Image

# Far apart in hue or lightness, so that shading and noise leave them distinguishable.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (250, 140, 15),
    "yellow": (250, 232, 40),
    "green": (35, 160, 50),
    "cyan": (45, 215, 225),
    "blue": (35, 60, 215),
    "purple": (150, 45, 185),
    "white": (248, 248, 248),
}
FILLS = ("plain", "striped", "dotted")

_COLOUR_JITTER = 12  # levels of 255
_DARK_SHADE = 0.42  # of the colour, in stripes and dots
_NOISE = 5.0  # standard deviation in levels of 255


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Muted texture (height, width, 3) float32: clouds of several scales, sometimes with a grating."""
    field = np.zeros((height, width), dtype=np.float32)
    for cells, weight in ((3, 0.45), (9, 0.3), (32, 0.25)):
        coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        field += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
    if rng.random() < 0.5:
        wave = _wave(rng, height, width, period=rng.uniform(8, 30))
        field += rng.uniform(0.05, 0.15) * wave
    grey = rng.uniform(50, 180)
    first, second = (grey + rng.uniform(-25, 25, 3) + shift for shift in (-45, 45))
    return first.astype(np.float32) + field[:, :, None] * (second - first).astype(np.float32)


def object_colours(rng: np.random.Generator, colour: str, fill: str, height: int, width: int) -> np.ndarray:
    """Colours (height, width, 3) float32 of an object's patch: its fill, lit from one side."""
    base = np.asarray(COLOURS[colour], dtype=np.float32)
    base = base + rng.uniform(-_COLOUR_JITTER, _COLOUR_JITTER, 3).astype(np.float32)
    top, bottom = rng.uniform(0.88, 1.06, 2).tolist()
    lit = np.linspace(top, bottom, height, dtype=np.float32)[:, None]
    if fill == "plain":
        shade = np.broadcast_to(lit, (height, width))
    else:
        shade = lit * np.where(_dark_parts(rng, fill, height, width), np.float32(_DARK_SHADE), np.float32(1))
    return shade[:, :, None] * base


def finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The uint8 image, with grain."""
    grain = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(_NOISE)
    return np.clip(image + grain[:, :, None], 0, 255).astype(np.uint8)


def _dark_parts(rng: np.random.Generator, fill: str, height: int, width: int) -> np.ndarray:
    # Scaled with the object, so that the fill of a large one is seen in a small version of the image too.
    period = max(5.0, rng.uniform(0.26, 0.36) * float(np.sqrt(height * width)))
    if fill == "striped":
        return _wave(rng, height, width, period) > 0
    angle = rng.uniform(0, np.pi)
    first, second = (_wave(rng, height, width, period * 0.9, angle + turn) for turn in (0, np.pi / 2))
    return first + second > 0.7


def _wave(
    rng: np.random.Generator, height: int, width: int, period: float, angle: float | None = None
) -> np.ndarray:
    if angle is None:
        angle = rng.uniform(0, np.pi)
    frequency = 2 * np.pi / period
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(frequency * np.sin(angle))
    x = np.arange(width, dtype=np.float32)[None, :] * np.float32(frequency * np.cos(angle))
    return np.sin(y + (x + np.float32(rng.uniform(0, 2 * np.pi))))
