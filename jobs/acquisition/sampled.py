"""Scenes with their expressions, as the writers of the referring data sets take them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from jobs.acquisition.settings import DatasetConfig
from jobs.sample_scenes.expressions import AMBIGUOUS_KINDS, Expression, expressions_for
from jobs.sample_scenes.scene import Scene, draw_scene
from jobs.sample_scenes.seeds import scene_rng


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledScene:
    """number: position in the data set, from 0."""

    number: int
    split: str
    scene: Scene
    expressions: tuple[Expression, ...]

    def by_targets(self) -> dict[tuple[int, ...], list[Expression]]:
        """Expressions with the same target, in order of the targets; those without any first."""
        groups: dict[tuple[int, ...], list[Expression]] = {}
        for expression in sorted(self.expressions, key=lambda expression: expression.targets):
            groups.setdefault(expression.targets, []).append(expression)
        return groups


def sample_scenes(config: DatasetConfig, seed: int, purpose: str) -> Iterator[SampledScene]:
    """The scenes of a data set; `purpose` keeps them apart from those of every other."""
    counts = config.expressions
    for number in range(config.images):
        rng = scene_rng(seed, purpose, number)
        scene = draw_scene(rng, config.scene)
        expressions = expressions_for(
            scene, rng, per_object=counts.per_object, multiple=counts.multiple, no_target=counts.no_target
        )
        yield SampledScene(
            number=number, split=config.split_of(number), scene=scene, expressions=tuple(expressions)
        )


@dataclass(kw_only=True)
class SampleFigures:
    """Counts of what was drawn."""

    images: int = 0
    objects: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, sampled: SampledScene) -> None:
        self.images += 1
        self.objects += len(sampled.scene.objects)
        self.kinds.update(expression.kind for expression in sampled.expressions)

    def summary(self) -> dict[str, float | int | str]:
        """`ambiguous_share`: of the single-target expressions, needing a relation or a second attribute."""
        multiple, no_target = self.kinds["multiple"], self.kinds["no_target"]
        single = self.kinds.total() - multiple - no_target
        ambiguous = sum(self.kinds[kind] for kind in AMBIGUOUS_KINDS)
        return {
            "images": self.images,
            "objects": self.objects,
            "expressions": self.kinds.total(),
            "multiple_target_expressions": multiple,
            "no_target_expressions": no_target,
            "ambiguous_share": round(ambiguous / max(1, single), 4),
        }
