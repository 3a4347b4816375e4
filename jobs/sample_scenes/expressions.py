"""Referring expressions that are true of exactly their targets, checked against the whole scene.

A relation counts only with a margin: an object is left of another when its centre is by `MARGIN` of the
image width further left, and no object that the words could mean may lie in the zone between.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np

from jobs.sample_scenes.scene import SHAPE_FILLS, SHAPES, Scene, SceneObject
from jobs.sample_scenes.textures import COLOURS, FILLS

MARGIN = 0.06  # of the image's side, between centres
AREA_RATIO = 1.3  # largest / next, smallest / next
DISTANCE_RATIO = 1.3  # second closest / closest

Kind = Literal[
    "noun",
    "attribute",
    "two_attributes",
    "superlative",
    "ordinal",
    "relation",
    "closest",
    "multiple",
    "no_target",
]
# Without their relation or second attribute these would be true of several objects.
AMBIGUOUS_KINDS: frozenset[Kind] = frozenset(
    {"two_attributes", "superlative", "ordinal", "relation", "closest"}
)
_KIND_WEIGHTS: dict[Kind, float] = {
    "noun": 5,
    "attribute": 8,
    "two_attributes": 3,
    "superlative": 2.5,
    "ordinal": 1,
    "relation": 3,
    "closest": 1,
}

_PLURALS = {noun: f"{noun}es" if noun in ("box", "cross") else f"{noun}s" for noun in ("object", *SHAPES)}
_WORDS = (
    "the all both and of to from left right above below leftmost rightmost highest lowest "
    "largest smallest closest second"
)
VOCABULARY: tuple[str, ...] = (*_WORDS.split(), *COLOURS, *FILLS, *_PLURALS, *_PLURALS.values())


@dataclass(frozen=True, kw_only=True)
class Expression:
    """text: lower-case words of `VOCABULARY` separated by single spaces. targets: indices into
    `scene.objects`, rising; () if nothing is meant. kind: what is needed to resolve it.
    spatial: whether places or sizes of objects have to be compared."""

    text: str
    targets: tuple[int, ...]
    kind: Kind
    spatial: bool = False


@dataclass(frozen=True, kw_only=True)
class _Description:
    """What some objects have in common; None: anything."""

    fill: str | None = None
    colour: str | None = None
    shape: str | None = None

    def among(self, objects: Sequence[SceneObject]) -> tuple[int, ...]:
        return tuple(
            index
            for index, item in enumerate(objects)
            if self.shape in (None, item.shape)
            and self.colour in (None, item.colour)
            and self.fill in (None, item.fill)
        )

    @property
    def attributes(self) -> int:
        return (self.fill is not None) + (self.colour is not None)

    def text(self, plural: bool = False) -> str:
        noun = self.shape or "object"
        return " ".join(word for word in (self.fill, self.colour, _PLURALS[noun] if plural else noun) if word)


def describe(item: SceneObject) -> str:
    """All attributes of an object, such as "striped red star"."""
    return _Description(fill=item.fill, colour=item.colour, shape=item.shape).text()


def expressions_for(
    scene: Scene, rng: np.random.Generator, *, per_object: int = 2, multiple: int = 1, no_target: int = 1
) -> list[Expression]:
    """Expressions of a scene in random order, texts distinct; fewer than asked for where the scene
    does not have more.

    per_object: single-target expressions of each object. multiple: expressions of two or more objects.
    no_target: expressions of something plausible that is not there.
    """
    groups: dict[tuple[int, ...] | Kind, list[Expression]] = {}
    for expression in _Finder(scene).all():
        key: tuple[int, ...] | Kind = expression.kind
        if len(expression.targets) == 1:
            key = expression.targets
        groups.setdefault(key, []).append(expression)
    counts: dict[tuple[int, ...] | Kind, int] = {"multiple": multiple, "no_target": no_target}
    chosen: list[Expression] = []
    for key, group in groups.items():
        chosen += _some(rng, group, counts.get(key, per_object))
    return [chosen[index] for index in rng.permutation(len(chosen))]


def _some(rng: np.random.Generator, group: list[Expression], count: int) -> list[Expression]:
    """`count` of the group at random, a kind in proportion to its weight, however many it has."""
    kinds = [(expression.kind, expression.spatial) for expression in group]
    weights = np.array([_KIND_WEIGHTS.get(kind[0], 1.0) / kinds.count(kind) for kind in kinds])
    order = np.argsort(rng.exponential(size=len(group)) / weights, kind="stable")
    return [group[index] for index in order[:count]]


class _Finder:
    """All expressions of one scene."""

    def __init__(self, scene: Scene) -> None:
        self.objects = scene.objects
        height, width = scene.image.shape[:2]
        centres = np.array([item.centre for item in scene.objects])
        self.x, self.y = (centres / (width, height)).T.tolist()  # in units of the image's sides
        self.areas = [item.area for item in scene.objects]
        self.distances = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1)).tolist()
        self.descriptions = self._true_descriptions()
        self.anchors = self._anchors()

    def all(self) -> Iterator[Expression]:
        """Every expression of the scene, texts distinct."""
        yield from self._by_attributes()
        for description, matching in self.descriptions.items():
            if len(matching) >= 2 and description.attributes <= 1:
                yield from self._superlatives(description, matching)
                yield from self._ordinals(description, matching)
                yield from self._relations(description, matching)
        for (first, one), (second, other) in combinations(self.anchors.items(), 2):
            text = f"the {one.text()} and the {other.text()}"
            yield Expression(text=text, targets=tuple(sorted((first, second))), kind="multiple")
        yield from self._absent()

    def _true_descriptions(self) -> dict[_Description, tuple[int, ...]]:
        """Every description true of something, and of what."""
        found: dict[_Description, tuple[int, ...]] = {}
        for item in self.objects:
            for fill, colour, shape in product((None, item.fill), (None, item.colour), (None, item.shape)):
                description = _Description(fill=fill, colour=colour, shape=shape)
                if description not in found:
                    found[description] = description.among(self.objects)
        return found

    def _anchors(self) -> dict[int, _Description]:
        """The shortest description with a shape that is true of one object alone, for those that have one."""
        anchors: dict[int, _Description] = {}
        for description, matching in sorted(self.descriptions.items(), key=lambda entry: entry[0].attributes):
            if description.shape is not None and len(matching) == 1:
                anchors.setdefault(matching[0], description)
        return anchors

    def _by_attributes(self) -> Iterator[Expression]:
        kinds: tuple[Kind, ...] = ("noun", "attribute", "two_attributes")
        for description, matching in self.descriptions.items():
            if len(matching) >= 2:
                yield _plural(description, matching)
            elif description.shape is not None and self._needs_every_attribute(description):
                kind = kinds[description.attributes]
                yield Expression(text=f"the {description.text()}", targets=matching, kind=kind)

    def _needs_every_attribute(self, description: _Description) -> bool:
        fill, colour, shape = description.fill, description.colour, description.shape
        shorter = [_Description(colour=colour, shape=shape), _Description(fill=fill, shape=shape)]
        return all(len(self.descriptions[d]) >= 2 for d in shorter if d.attributes < description.attributes)

    def _superlatives(self, head: _Description, matching: tuple[int, ...]) -> Iterator[Expression]:
        logarithms = np.log(self.areas).tolist()
        for word, values, sign, margin in (
            ("leftmost", self.x, 1, MARGIN),
            ("rightmost", self.x, -1, MARGIN),
            ("highest", self.y, 1, MARGIN),
            ("lowest", self.y, -1, MARGIN),
            ("smallest", logarithms, 1, np.log(AREA_RATIO)),
            ("largest", logarithms, -1, np.log(AREA_RATIO)),
        ):
            order = sorted(matching, key=lambda index: sign * values[index])
            if sign * (values[order[1]] - values[order[0]]) >= margin:
                yield Expression(text=f"the {word} {head.text()}", targets=(order[0],), kind="superlative")

    def _ordinals(self, head: _Description, matching: tuple[int, ...]) -> Iterator[Expression]:
        if len(matching) < 3:
            return
        for side, sign in (("left", 1), ("right", -1)):
            first, second, third = sorted(matching, key=lambda index: sign * self.x[index])[:3]
            gaps = (abs(self.x[second] - self.x[first]), abs(self.x[third] - self.x[second]))
            if min(gaps) >= MARGIN:
                text = f"the second {head.text()} from the {side}"
                yield Expression(text=text, targets=(second,), kind="ordinal", spatial=True)

    def _relations(self, head: _Description, matching: tuple[int, ...]) -> Iterator[Expression]:
        for anchor, description in self.anchors.items():
            others = tuple(index for index in matching if index != anchor)
            if len(others) < 2:
                continue
            for words, values, sign in (
                ("left of", self.x, -1),
                ("right of", self.x, 1),
                ("above", self.y, -1),
                ("below", self.y, 1),
            ):
                gaps = [sign * (values[index] - values[anchor]) for index in others]
                if min(abs(gap) for gap in gaps) >= MARGIN:
                    targets = tuple(index for index, gap in zip(others, gaps, strict=True) if gap > 0)
                    yield _related(head, f"{words} the {description.text()}", targets)
            distances = self.distances[anchor]
            nearest, next_nearest = sorted(others, key=lambda index: distances[index])[:2]
            if distances[next_nearest] >= DISTANCE_RATIO * distances[nearest]:
                text = f"the {head.text()} closest to the {description.text()}"
                yield Expression(text=text, targets=(nearest,), kind="closest", spatial=True)

    def _absent(self) -> Iterator[Expression]:
        """Attributes that are there, but not together on a shape that is there."""
        shapes = {item.shape for item in self.objects}
        colours = {item.colour for item in self.objects}
        fills = {item.fill for item in self.objects}
        for shape, colour, fill in product(sorted(shapes), (None, *sorted(colours)), (None, *sorted(fills))):
            description = _Description(fill=fill, colour=colour, shape=shape)
            if description not in self.descriptions and fill in (None, *SHAPE_FILLS[shape]):
                yield Expression(text=f"the {description.text()}", targets=(), kind="no_target")


def _plural(head: _Description, targets: tuple[int, ...], relation: str = "") -> Expression:
    text = f"{'both' if len(targets) == 2 else 'all'} {head.text(plural=True)} {relation}"
    return Expression(text=text.rstrip(), targets=targets, kind="multiple", spatial=relation != "")


def _related(head: _Description, relation: str, targets: tuple[int, ...]) -> Expression:
    if len(targets) >= 2:
        return _plural(head, targets, relation)
    kind: Kind = "relation" if targets else "no_target"
    return Expression(text=f"the {head.text()} {relation}", targets=targets, kind=kind, spatial=True)
