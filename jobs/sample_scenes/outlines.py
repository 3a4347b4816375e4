"""Outlines of the objects, from simple to complex, rasterised with anti-aliasing.

An outline is drawn once in units of its own, then scaled so that it covers the wanted area.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SUPERSAMPLING = 3  # sub-pixels a pixel side
_GLYPHS = "ABEFGHKMNPRSWZ234579&?"
_GLYPH_PIXELS = 72
_CIRCLE = np.linspace(0.0, 2 * np.pi, 40, endpoint=False)


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Filled polygons, holes in them, or one open stroke; coordinates (N, 2) in units of its own."""

    polygons: tuple[np.ndarray, ...] = ()
    holes: tuple[np.ndarray, ...] = ()
    stroke: np.ndarray | None = None
    stroke_width: float = 0.0

    def mapped(self, matrix: np.ndarray, stroke_scale: float) -> "Outline":
        """The outline under a (2, 2) linear map."""
        return Outline(
            polygons=tuple(points @ matrix.T for points in self.polygons),
            holes=tuple(points @ matrix.T for points in self.holes),
            stroke=None if self.stroke is None else self.stroke @ matrix.T,
            stroke_width=self.stroke_width * stroke_scale,
        )

    def area(self) -> float:
        """Covered area in square units; a stroke counts as length times width."""
        area = sum(_polygon_area(p) for p in self.polygons) - sum(_polygon_area(p) for p in self.holes)
        if self.stroke is not None:
            area += float(np.hypot(*np.diff(self.stroke, axis=0).T).sum()) * self.stroke_width
        return area

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner, each (2,)."""
        points = np.concatenate(self.polygons) if self.stroke is None else self.stroke
        return points.min(0) - self.stroke_width / 2, points.max(0) + self.stroke_width / 2


def draw_outline(rng: np.random.Generator, shape: str, area: float, longest_side: float) -> np.ndarray:
    """Coverage (h, w) float32 in [0, 1] of one object, cut to its bounding box.

    area: wanted covered area in square pixels; the object is drawn smaller where it would be longer
    than `longest_side` pixels.
    """
    if shape == "glyph":
        return _draw_glyph(rng, area, longest_side)
    outline = _OUTLINES[shape](rng)
    scale = np.sqrt(area / outline.area())
    low, high = outline.bounds()
    scale = min(scale, longest_side / float((high - low).max()))
    return _rasterise(outline.mapped(np.eye(2) * scale, scale))


def _rasterise(outline: Outline) -> np.ndarray:
    low, high = outline.bounds()
    width, height = (int(n) for n in np.ceil(high - low) + 1)
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)

    def pixels(points: np.ndarray) -> list[float]:
        return ((points - low + 0.5) * SUPERSAMPLING).ravel().tolist()

    for polygon in outline.polygons:
        draw.polygon(pixels(polygon), fill=255)
    for hole in outline.holes:
        draw.polygon(pixels(hole), fill=0)
    if outline.stroke is not None:
        line_width = max(1, round(outline.stroke_width * SUPERSAMPLING))
        draw.line(pixels(outline.stroke), fill=255, width=line_width, joint="curve")
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32) / 255


@lru_cache(maxsize=len(_GLYPHS))
def _glyph(character: str) -> Image.Image:
    font = ImageFont.load_default(_GLYPH_PIXELS)
    left, top, right, bottom = font.getbbox(character, stroke_width=2)
    image = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), character, fill=255, font=font, stroke_width=2)
    return image


def _draw_glyph(rng: np.random.Generator, area: float, longest_side: float) -> np.ndarray:
    glyph = _glyph(_GLYPHS[rng.integers(len(_GLYPHS))])
    turned = glyph.rotate(float(rng.uniform(-25, 25)), Image.Resampling.BILINEAR, expand=True)
    turned = turned.crop(turned.getbbox())
    covered = np.asarray(turned, dtype=np.float32).sum() / 255
    scale = min(float(np.sqrt(area / covered)), longest_side / max(turned.size))
    size = (max(3, round(turned.width * scale)), max(3, round(turned.height * scale)))
    return np.asarray(turned.resize(size, Image.Resampling.BOX), dtype=np.float32) / 255


def _polygon_area(points: np.ndarray) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _pose(rng: np.random.Generator, stretch: float, turn: float = np.pi) -> np.ndarray:
    """Random stretch up to `stretch` along one axis, then a turn of up to +-`turn` radians, as (2, 2)."""
    factor = np.sqrt(rng.uniform(1.0, stretch))
    angle = rng.uniform(-turn, turn)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]) @ np.diag([factor, 1 / factor])


def _around(radius: float | np.ndarray, angles: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _ellipse(rng: np.random.Generator) -> Outline:
    return Outline(polygons=(_around(1.0, _CIRCLE) @ _pose(rng, 1.8).T,))


def _box(rng: np.random.Generator) -> Outline:
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    return Outline(polygons=(corners @ _pose(rng, 2.0, turn=0.5).T,))


def _triangle(rng: np.random.Generator) -> Outline:
    angles = np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.25, 0.25, 3)
    return Outline(polygons=(_around(1.0, angles) @ _pose(rng, 1.3).T,))


def _star(rng: np.random.Generator) -> Outline:
    tips = int(rng.integers(5, 7))
    radius = np.where(np.arange(2 * tips) % 2, rng.uniform(0.38, 0.48), 1.0)
    return Outline(polygons=(_around(radius, np.arange(2 * tips) * np.pi / tips) @ _pose(rng, 1.2).T,))


def _cross(rng: np.random.Generator) -> Outline:
    a = rng.uniform(0.26, 0.38)
    corners = [(a, 1), (a, a), (1, a), (1, -a), (a, -a), (a, -1)]
    points = np.array(corners + [(-x, -y) for x, y in corners], dtype=float)
    return Outline(polygons=(points @ _pose(rng, 1.2).T,))


def _ring(rng: np.random.Generator) -> Outline:
    circle = _around(1.0, _CIRCLE) @ _pose(rng, 1.5).T
    return Outline(polygons=(circle,), holes=(circle * rng.uniform(0.5, 0.68),))


def _button(rng: np.random.Generator) -> Outline:
    count = int(rng.integers(2, 5))
    pose = _pose(rng, 1.3)
    centres = _around(0.5, np.arange(count) * 2 * np.pi / count)
    holes = tuple((centre + _around(0.24, _CIRCLE)) @ pose.T for centre in centres)
    return Outline(polygons=(_around(1.0, _CIRCLE) @ pose.T,), holes=holes)


def _blob(rng: np.random.Generator) -> Outline:
    waves = np.arange(2, 6)[:, None]
    heights = rng.uniform(0.08, 0.2, (4, 1))
    phases = rng.uniform(0, 2 * np.pi, (4, 1))
    radius = 1 + (heights * np.cos(waves * _CIRCLE + phases)).sum(0)
    return Outline(polygons=(_around(radius, _CIRCLE) @ _pose(rng, 1.2).T,))


def _curve(rng: np.random.Generator) -> Outline:
    t = np.linspace(-1, 1, 48)
    bend = rng.uniform(0.35, 0.6) * np.sin(t * rng.uniform(1.2, 2.0) * np.pi + rng.uniform(0, 2 * np.pi))
    points = np.stack([t, bend], axis=1) @ _pose(rng, 1.0).T
    return Outline(stroke=points, stroke_width=rng.uniform(0.13, 0.18))


_OUTLINES: dict[str, Callable[[np.random.Generator], Outline]] = {
    "ellipse": _ellipse,
    "box": _box,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "button": _button,
    "blob": _blob,
    "curve": _curve,
}
