"""Draws a scene: textured background, three to eight objects, some partly hidden by others.

How hard the scenes are is part of what results are measured on: it is fixed here, in constants, and not
a parameter to tune a model against.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.sample_scenes.outlines import draw_outline
from jobs.sample_scenes.textures import COLOURS, FILLS, background, finish, object_colours

# Wanted area as a share of the image, before anything hides a part: thin shapes would not fit if large.
SHAPE_AREAS: dict[str, tuple[float, float]] = {
    "ellipse": (0.009, 0.13),
    "box": (0.009, 0.13),
    "triangle": (0.009, 0.11),
    "star": (0.01, 0.11),
    "cross": (0.01, 0.1),
    "ring": (0.01, 0.09),
    "button": (0.012, 0.11),
    "blob": (0.009, 0.13),
    "glyph": (0.01, 0.06),
    "curve": (0.01, 0.035),
}
SHAPES = tuple(SHAPE_AREAS)
# Fills that can be seen on a shape: thin ones are always plain, and dots would look like holes of a button.
SHAPE_FILLS = dict.fromkeys(SHAPES, FILLS) | {
    "glyph": ("plain",),
    "curve": ("plain",),
    "button": ("plain", "striped"),
}

MIN_VISIBLE_AREA = 0.005  # of the image
MAX_VISIBLE_AREA = 0.15
_MIN_VISIBLE_SHARE = 0.62  # of the object's own area
_STRAY_SHARE = 0.12  # objects that do not follow the scene's few shapes and colours
_OVERLAP_SHARE = 0.35  # objects placed so that they touch or cover an earlier one
_PLACEMENTS = 10  # tries to place one object
_MAX_ASPECT = 1.6


class SceneConfig(BaseModel):
    """Size of a scene in pixels and its number of objects; both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_side: int = Field(default=128, ge=96, description="pixels")
    max_side: int = Field(default=224, le=1024, description="pixels")
    min_objects: int = Field(default=3, ge=1, description="objects of a scene, at least")
    max_objects: int = Field(default=8, le=12, description="objects of a scene, at most")

    @model_validator(mode="after")
    def _ordered(self) -> "SceneConfig":
        if self.min_side > self.max_side:
            raise ValueError(f"min_side {self.min_side} is larger than max_side {self.max_side}")
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects {self.min_objects} is larger than max_objects {self.max_objects}")
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneObject:
    """One object. mask: its visible part (H, W) bool; centre: (x, y) of that part in pixels;
    area: its number of pixels; whole_area: with what other objects hide."""

    shape: str
    colour: str
    fill: str
    mask: np.ndarray
    centre: tuple[float, float]
    area: int
    whole_area: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """image: (H, W, 3) uint8 RGB. objects: back to front."""

    image: np.ndarray
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    shape: str
    colour: str
    fill: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Placed:
    kind: _Kind
    coverage: np.ndarray  # (h, w)
    top: int
    left: int
    whole_area: int

    def window(self) -> tuple[slice, slice]:
        height, width = self.coverage.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def draw_scene(rng: np.random.Generator, config: SceneConfig) -> Scene:
    """A scene that depends on nothing but the state of `rng` and the config."""
    while True:
        height, width = _size(rng, config)
        wanted = int(rng.integers(config.min_objects, config.max_objects + 1))
        placed, owner = _place_objects(rng, _kinds(rng, wanted), height, width)
        if len(placed) >= config.min_objects:
            break
    image = background(rng, height, width)
    for item in placed:
        coverage = item.coverage[:, :, None]
        colours = object_colours(rng, item.kind.colour, item.kind.fill, *item.coverage.shape)
        patch = image[item.window()]
        patch += coverage * (colours - patch)
    objects = tuple(_scene_object(item, owner == index) for index, item in enumerate(placed))
    return Scene(image=finish(rng, image), objects=objects)


def _size(rng: np.random.Generator, config: SceneConfig) -> tuple[int, int]:
    first = int(rng.integers(config.min_side, config.max_side + 1))
    low = max(config.min_side, int(first / _MAX_ASPECT))
    high = min(config.max_side, int(first * _MAX_ASPECT))
    second = int(rng.integers(low, high + 1))
    return (first, second) if rng.random() < 0.5 else (second, first)


def _kinds(rng: np.random.Generator, count: int) -> list[_Kind]:
    """What to draw: few shapes and colours, repeated, so that a name alone seldom says which object."""
    shapes = rng.permutation(SHAPES)[: rng.integers(1, 4)]
    colours = rng.permutation(list(COLOURS))[: rng.integers(1, 4)]
    kinds = []
    for _ in range(count):
        shape = str(rng.choice(SHAPES) if rng.random() < _STRAY_SHARE else rng.choice(shapes))
        colour = str(rng.choice(list(COLOURS)) if rng.random() < _STRAY_SHARE else rng.choice(colours))
        kinds.append(_Kind(shape=shape, colour=colour, fill=str(rng.choice(SHAPE_FILLS[shape]))))
    return kinds


def _place_objects(
    rng: np.random.Generator, kinds: list[_Kind], height: int, width: int
) -> tuple[list[_Placed], np.ndarray]:
    """The objects that found a place, and the index of the visible one at each pixel (-1: background)."""
    owner = np.full((height, width), -1, dtype=np.int8)
    placed: list[_Placed] = []
    visible: list[int] = []  # pixels of each placed object
    for kind in kinds:
        low, high = SHAPE_AREAS[kind.shape]
        area = float(np.exp(rng.uniform(np.log(low), np.log(high)))) * height * width
        coverage = draw_outline(rng, kind.shape, area, longest_side=0.8 * min(height, width))
        inside = coverage >= 0.5
        whole_area = int(inside.sum())
        if not MIN_VISIBLE_AREA * 1.1 <= whole_area / (height * width) <= MAX_VISIBLE_AREA:
            continue
        for _ in range(_PLACEMENTS):
            top, left = _position(rng, placed, coverage.shape, (height, width))
            item = _Placed(kind=kind, coverage=coverage, top=top, left=left, whole_area=whole_area)
            under = owner[item.window()]
            hidden = np.bincount(under[inside] + 1, minlength=len(placed) + 1)[1:]
            if all(
                lost == 0 or _may_hide(kind, below, seen - lost, height * width)
                for seen, lost, below in zip(visible, hidden, placed, strict=True)
            ):
                visible = [seen - int(lost) for seen, lost in zip(visible, hidden, strict=True)]
                under[inside] = len(placed)
                placed.append(item)
                visible.append(whole_area)
                break
    return placed, owner


def _may_hide(kind: _Kind, below: _Placed, still_visible: int, pixels: int) -> bool:
    """Whether the object below stays recognisable; objects of one colour would melt into each other."""
    enough = max(MIN_VISIBLE_AREA * pixels, _MIN_VISIBLE_SHARE * below.whole_area)
    return kind.colour != below.kind.colour and still_visible >= enough


def _position(
    rng: np.random.Generator, placed: list[_Placed], size: tuple[int, ...], frame: tuple[int, int]
) -> tuple[int, int]:
    free = np.array(frame) - size
    if placed and rng.random() < _OVERLAP_SHARE:
        other = placed[int(rng.integers(len(placed)))]
        reach = (np.array(other.coverage.shape) + size) / 2
        centre = np.array([other.top, other.left]) + np.array(other.coverage.shape) / 2
        angle = rng.uniform(0, 2 * np.pi)
        centre = centre + reach * rng.uniform(0.6, 0.85) * np.array([np.sin(angle), np.cos(angle)])
        top, left = np.clip(np.round(centre - np.array(size) / 2), 0, free)
    else:
        top, left = (rng.integers(room + 1) for room in free.tolist())
    return int(top), int(left)


def _scene_object(item: _Placed, mask: np.ndarray) -> SceneObject:
    rows, columns = np.nonzero(mask[item.window()])
    return SceneObject(
        shape=item.kind.shape,
        colour=item.kind.colour,
        fill=item.kind.fill,
        mask=mask,
        centre=(item.left + float(columns.mean()) + 0.5, item.top + float(rows.mean()) + 0.5),
        area=len(rows),
        whole_area=item.whole_area,
    )
