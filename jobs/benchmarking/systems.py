"""The systems without a language model that a benchmark compares with, behind one interface."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alto_models import masks
from alto_models.baselines import best_constant_mask, largest_object, random_object
from alto_models.data.squares import cut_mask, restore_whole, whole_square
from jobs.benchmarking.questions import BenchmarkImage, Instance, Question
from jobs.benchmarking.results import NO_MODE
from jobs.benchmarking.rows import Prediction

MEAN_MASK_SIZE = 64


class System(Protocol):
    """Anything that answers questions with masks. modes: the prompt modes it is evaluated in."""

    @property
    def name(self) -> str: ...

    @property
    def modes(self) -> tuple[str, ...]: ...

    def predict(self, questions: Sequence[Question], mode: str) -> list[Prediction]:
        """One prediction a question, in order. Questions of one image follow each other."""
        ...


@dataclass(frozen=True)
class MeanMask:
    """The same mask for every question, stretched to the image."""

    grid: NDArray[np.bool_]
    name: str = "mean_mask"
    modes: tuple[str, ...] = (NO_MODE,)

    @classmethod
    def of(cls, images: Iterable[BenchmarkImage]) -> "MeanMask":
        """From the truths of the benchmark itself, each record as often as it has expressions."""
        grids = [
            cut_mask(
                masks.parse_counts(record.rle.counts),
                image.height,
                image.width,
                whole_square(image.height, image.width),
                MEAN_MASK_SIZE,
            )
            for image in images
            for record in image.records
            for _ in record.expressions
            if record.rle is not None
        ]
        shape = (len(grids), MEAN_MASK_SIZE, MEAN_MASK_SIZE)
        return cls(best_constant_mask(np.array(grids, dtype=bool).reshape(shape)))

    def predict(self, questions: Sequence[Question], mode: str) -> list[Prediction]:
        grid = self.grid.astype(np.float32)
        return [
            Prediction(
                mask=restore_whole(grid, q.image.height, q.image.width).astype(bool), asked=q.expression
            )
            for q in questions
        ]


@dataclass(frozen=True)
class LargestObject:
    """The true mask of the largest annotated object of the image."""

    name: str = "largest_object"
    modes: tuple[str, ...] = (NO_MODE,)

    def predict(self, questions: Sequence[Question], mode: str) -> list[Prediction]:
        return [_object(q, _largest) for q in questions]


@dataclass(frozen=True)
class RandomObject:
    """The true mask of a random annotated object, drawn anew for every expression."""

    seed: int
    name: str = "random_object"
    modes: tuple[str, ...] = (NO_MODE,)

    def predict(self, questions: Sequence[Question], mode: str) -> list[Prediction]:
        return [_object(q, partial(self._choose, q)) for q in questions]

    def _choose(self, question: Question, objects: Sequence[Instance]) -> int:
        key = f"{question.image.image_id}/{question.record.record_id}/{question.expression_index}"
        return random_object(len(objects), np.random.default_rng([self.seed, *key.encode()]))


@dataclass(frozen=True)
class Nothing:
    """Says that nothing is meant, whatever is asked."""

    name: str = "nothing"
    modes: tuple[str, ...] = (NO_MODE,)

    def predict(self, questions: Sequence[Question], mode: str) -> list[Prediction]:
        return [Prediction(mask=None, asked=q.expression) for q in questions]


def _largest(objects: Sequence[Instance]) -> int:
    return largest_object([item.area for item in objects])


def _object(question: Question, choose: Callable[[Sequence[Instance]], int]) -> Prediction:
    objects = question.image.objects
    if not objects:
        return Prediction(mask=None, asked=question.expression)
    chosen = objects[choose(objects)]
    return Prediction(mask=masks.decode(chosen.rle).astype(bool), asked=question.expression)
