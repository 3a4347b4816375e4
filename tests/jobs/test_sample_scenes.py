"""Sample scenes are what they are said to be, and their expressions are true of exactly their targets."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from jobs.sample_scenes.expressions import AMBIGUOUS_KINDS, VOCABULARY, Expression, describe, expressions_for
from jobs.sample_scenes.scene import SHAPES, Scene, SceneConfig, draw_scene
from jobs.sample_scenes.seeds import scene_rng
from jobs.sample_scenes.textures import COLOURS, FILLS

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, config: SceneConfig | None = None) -> tuple[Scene, list[Expression]]:
    rng = scene_rng(seed, "test", 0)
    scene = draw_scene(rng, config or SceneConfig())
    return scene, expressions_for(scene, rng, per_object=4, multiple=6, no_target=6)


@pytest.fixture(scope="module")
def many() -> list[tuple[Scene, list[Expression]]]:
    return [drawn(seed) for seed in range(120)]


class Reader:
    """Understands an expression by its words alone, from the visible masks and the attributes of objects."""

    def __init__(self, scene: Scene) -> None:
        self.objects = scene.objects
        height, width = scene.image.shape[:2]
        centres = [ndimage.center_of_mass(item.mask) for item in scene.objects]
        self.pixel = [np.array([x, y]) for y, x in centres]
        self.x = [x / width for _, x in centres]
        self.y = [y / height for y, _ in centres]
        self.area = [int(np.count_nonzero(item.mask)) for item in scene.objects]

    def noun(self, words: list[str]) -> list[int]:
        """Objects that all words fit, the last of which is the noun."""
        singular = {"boxes": "box", "crosses": "cross"} | {
            shape + "s": shape for shape in (*SHAPES, "object")
        }
        noun = singular.get(words[-1], words[-1])
        return [
            index
            for index, item in enumerate(self.objects)
            if noun in ("object", item.shape) and all(word in (item.colour, item.fill) for word in words[:-1])
        ]

    def one(self, words: list[str]) -> int:
        assert words[0] == "the"
        (index,) = self.noun(words[1:])
        return index

    def meaning(self, text: str) -> set[int]:
        words = text.split()
        if "and" in words:
            cut = words.index("and")
            return {self.one(words[:cut]), self.one(words[cut + 1 :])}
        if words[1] == "second":
            cut = words.index("from")
            direction = 1 if words[-1] == "left" else -1
            return {sorted(self.noun(words[2:cut]), key=lambda index: direction * self.x[index])[1]}
        extremes = {
            "leftmost": (min, self.x),
            "rightmost": (max, self.x),
            "highest": (min, self.y),
            "lowest": (max, self.y),
            "smallest": (min, self.area),
            "largest": (max, self.area),
        }
        if words[1] in extremes:
            choose, values = extremes[words[1]]
            return {choose(self.noun(words[2:]), key=lambda index: values[index])}
        if "closest" in words:
            cut = words.index("closest")
            anchor = self.one(words[cut + 2 :])
            others = [index for index in self.noun(words[1:cut]) if index != anchor]
            return {min(others, key=lambda index: np.linalg.norm(self.pixel[index] - self.pixel[anchor]))}
        for relation, holds in (
            ("left of", lambda a, b: self.x[a] < self.x[b]),
            ("right of", lambda a, b: self.x[a] > self.x[b]),
            ("above", lambda a, b: self.y[a] < self.y[b]),
            ("below", lambda a, b: self.y[a] > self.y[b]),
        ):
            if f" {relation} " in text:
                head, _, tail = text.partition(f" {relation} ")
                anchor = self.one(tail.split())
                return {
                    index for index in self.noun(head.split()[1:]) if index != anchor and holds(index, anchor)
                }
        return set(self.noun(words[1:]))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_expressions_are_true_of_exactly_their_targets(seed: int) -> None:
    scene, expressions = drawn(seed)
    reader = Reader(scene)
    for expression in expressions:
        assert reader.meaning(expression.text) == set(expression.targets), expression
        determiner = expression.text.split()[0]
        if determiner == "both":
            assert len(expression.targets) == 2
        elif determiner == "all":
            assert len(expression.targets) >= 3
        elif " and " not in expression.text:
            assert len(expression.targets) <= 1


def test_no_relation_is_a_close_call(many: list[tuple[Scene, list[Expression]]]) -> None:
    """Moving any one object by a few hundredths of the image changes the truth of no left/above relation."""
    for scene, expressions in many:
        reader = Reader(scene)
        values = {"left of": reader.x, "right of": reader.x, "above": reader.y, "below": reader.y}
        for expression in expressions:
            for relation, places in values.items():
                head, found, tail = expression.text.partition(f" {relation} ")
                if found:
                    anchor = reader.one(tail.split())
                    others = [index for index in reader.noun(head.split()[1:]) if index != anchor]
                    assert min(abs(places[index] - places[anchor]) for index in others) > 0.05


def test_ambiguous_kinds_need_their_relation_or_second_attribute(
    many: list[tuple[Scene, list[Expression]]],
) -> None:
    kinds: Counter[str] = Counter()
    for scene, expressions in many:
        reader = Reader(scene)
        for expression in expressions:
            kinds[expression.kind] += 1
            (first, *_), words = expression.targets or (0,), expression.text.split()
            if expression.kind == "two_attributes":
                item = scene.objects[first]
                assert len(reader.noun([item.colour, item.shape])) >= 2
                assert len(reader.noun([item.fill, item.shape])) >= 2
            elif expression.kind in AMBIGUOUS_KINDS:
                noun = next(n for n, word in enumerate(words) if word in (*SHAPES, "object"))
                attributes = [word for word in words[1:noun] if word in (*COLOURS, *FILLS)]
                assert len(attributes) <= 1
                assert len(reader.noun([*attributes, words[noun]])) >= 2
    assert set(kinds) >= AMBIGUOUS_KINDS | {"noun", "attribute", "multiple", "no_target"}


@pytest.mark.parametrize("per_object", [1, 2, 3])
def test_at_least_half_of_single_target_expressions_are_ambiguous(per_object: int) -> None:
    single = []
    for index in range(150):
        rng = scene_rng(7, "ambiguity", index)
        expressions = expressions_for(draw_scene(rng, SceneConfig()), rng, per_object=per_object)
        single += [expression for expression in expressions if len(expression.targets) == 1]
    assert np.mean([expression.kind in AMBIGUOUS_KINDS for expression in single]) >= 0.5


def test_no_target_names_what_is_there_but_not_together(many: list[tuple[Scene, list[Expression]]]) -> None:
    absent = [(scene, e) for scene, expressions in many for e in expressions if e.kind == "no_target"]
    assert any(e.spatial for _, e in absent)
    assert any(not e.spatial for _, e in absent)
    for scene, expression in absent:
        present = {word for item in scene.objects for word in (item.shape, item.colour, item.fill, "object")}
        named = set(expression.text.split()) & {*SHAPES, *COLOURS, *FILLS}
        assert named <= present


def test_expressions_use_the_closed_vocabulary_and_do_not_repeat(
    many: list[tuple[Scene, list[Expression]]],
) -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY) <= 60
    used = {word for _, expressions in many for e in expressions for word in e.text.split()}
    assert used == set(VOCABULARY)
    for scene, expressions in many:
        assert len({expression.text for expression in expressions}) == len(expressions)
        for item in scene.objects:
            assert set(describe(item).split()) == {item.fill, item.colour, item.shape}


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_scene_keeps_its_limits(seed: int) -> None:
    config = SceneConfig()
    scene, _ = drawn(seed, config)
    height, width = scene.image.shape[:2]
    assert scene.image.dtype == np.uint8
    assert config.min_side <= min(height, width) <= max(height, width) <= config.max_side
    assert 3 <= len(scene.objects) <= 8
    assert np.sum([item.mask for item in scene.objects], axis=0).max() == 1
    for item in scene.objects:
        assert 0.005 <= item.mask.mean() <= 0.15
        assert item.area == item.mask.sum() <= item.whole_area


def test_scenes_vary_in_outline_size_and_occlusion(many: list[tuple[Scene, list[Expression]]]) -> None:
    objects = [item for scene, _ in many for item in scene.objects]
    assert {item.shape for item in objects} == set(SHAPES)
    assert {item.colour for item in objects} == set(COLOURS)
    assert {item.fill for item in objects} == set(FILLS)
    assert np.mean([item.area < item.whole_area for item in objects]) > 0.1
    shares = [item.mask.mean() for item in objects]
    assert min(shares) < 0.01
    assert max(shares) > 0.09
    rings = [item for item in objects if item.shape == "ring" and item.area == item.whole_area]
    assert all(ndimage.binary_fill_holes(item.mask).sum() > item.area for item in rings)


def test_objects_show_their_colour(many: list[tuple[Scene, list[Expression]]]) -> None:
    """The brightest half of an object's pixels lies closest to the colour it is said to have."""
    palette = np.array(list(COLOURS.values()), dtype=float)
    right = total = 0
    for scene, _ in many:
        for item in scene.objects:
            pixels = scene.image[item.mask].astype(float)
            bright = pixels[pixels.sum(1) >= np.median(pixels.sum(1))].mean(0)
            nearest = np.linalg.norm(palette - bright, axis=1).argmin()
            right += list(COLOURS)[nearest] == item.colour
            total += 1
    assert right / total > 0.98


def content(seed: int, purpose: str, index: int) -> str:
    return hashlib.sha256(
        draw_scene(scene_rng(seed, purpose, index), SceneConfig()).image.tobytes()
    ).hexdigest()


def test_same_seed_same_scene_and_no_scene_twice() -> None:
    purposes = ("sa1b/sa_000000.tar", "sa1b/sa_000001.tar", "referring/refcoco", "benchmark/scenes", "base")
    keys = [(purpose, index) for purpose in purposes for index in range(8)]
    hashes = [content(3, *key) for key in keys]
    assert hashes == [content(3, *key) for key in keys]
    assert len(set(hashes)) == len(keys)
    assert set(hashes).isdisjoint(content(4, *key) for key in keys)


@pytest.mark.parametrize(
    "wrong", [{"min_side": 200, "max_side": 150}, {"min_objects": 6, "max_objects": 5}, {"sides": 3}]
)
def test_impossible_config_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        SceneConfig(**wrong)
