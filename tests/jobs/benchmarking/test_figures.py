"""Figures of a benchmark from masks to metrics.json's values: by hand, and against an implementation of a few lines."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest

from alto_models import masks
from jobs.benchmarking.questions import BenchmarkImage, Question, Record
from jobs.benchmarking.results import SystemMetrics
from jobs.benchmarking.rows import Prediction, sample_row
from jobs.benchmarking.scoring import Scoreboard

CODEBOOK = 64
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)


def grid(*rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows])


NOTHING = grid("....", "....")
LEFT = grid("##..", "##..")
TOP = grid("####", "....")


def question(
    image: str, record: str, sentence: int, target: np.ndarray | None, ignore: np.ndarray | None
) -> Question:
    shape = (LEFT if target is None else target).shape
    rle = None if target is None else masks.encode(target)
    described = Record(
        record_id=record,
        expressions=("one", "two")[: sentence + 1],
        rle=rle,
        area=0 if target is None else int(target.sum()),
        boundary_length=1,
        instances=(),
        ignore=None if ignore is None else masks.encode(ignore),
    )
    return Question(
        BenchmarkImage(image, shape[1], shape[0], b"", (described,)), described, sentence, "expression"
    )


def figures(asked: list[tuple[Question, Prediction]]) -> SystemMetrics:
    frame = pd.DataFrame([sample_row(*pair, "model", "adaptive") for pair in asked])
    board = Scoreboard(frame, resamples=100, seed=0, level=0.95, codebook_size=CODEBOOK)
    return board.metrics(("model", "adaptive"))


def said(mask: np.ndarray | None, length: int = 0, malformed: bool = False) -> Prediction:
    return Prediction(mask=mask, asked="", codes=tuple(range(length)), malformed=malformed)


def values(found: SystemMetrics) -> dict[str, float | None]:
    names = ("giou", "ciou", "miou", "n_acc", "t_acc", "boundary_iou", "mean_length")
    estimates = {name: getattr(found, name) for name in names}
    return {name: None if one is None else one.value for name, one in estimates.items()} | {
        "bits": found.bits,
        "malformed": found.malformed,
        **{f"p{level}": found.precision.get(str(level)) for level in LEVELS},
    }


def test_one_case_of_each_kind_by_hand() -> None:
    """IoU 2/6, 1, 0, 4/4 (of what is not ignored), 1, 0, 0, 0; masks two pixels high are boundary all over."""
    found = figures(
        [
            (question("a", "r", 0, LEFT, None), said(TOP, 4)),  # two of six pixels
            (question("a", "r", 1, LEFT, None), said(LEFT, 8)),  # its other sentence
            (question("b", "r", 0, LEFT, None), said(None)),  # empty prediction
            (question("c", "r", 0, LEFT | TOP, TOP & ~LEFT), said(LEFT | TOP, 6)),  # ignored pixels
            (question("d", "r", 0, None, None), said(None)),  # rightly nothing
            (question("d", "s", 0, None, None), said(TOP, 2)),  # no target, yet a mask
            (question("e", "r", 0, None, None), said(None, malformed=True)),  # no target, malformed
            (question("f", "r", 0, LEFT, None), said(None, malformed=True)),  # target, malformed
        ]
    )
    expected = {
        "giou": (2 / 6 + 1 + 0 + 1 + 1 + 0 + 0 + 0) / 8,
        "ciou": (2 + 4 + 0 + 4 + 0) / (6 + 4 + 4 + 4 + 4 + 4),
        "miou": (2 / 6 + 1 + 0 + 1 + 0) / 5,
        "n_acc": 1 / 3,
        "t_acc": 3 / 5,
        "boundary_iou": (2 / 6 + 1 + 0 + 1 + 0) / 5,
        "mean_length": (4 + 8 + 6 + 2) / 4,
        "bits": 5 * 6,
        "malformed": 2 / 8,
        **{f"p{level}": 2 / 5 for level in LEVELS},
    }
    assert values(found) == pytest.approx(expected)
    assert (found.samples, found.targets, found.malformed_answers) == (8, 5, 2)


def test_a_truth_that_is_ignored_whole_is_found_by_predicting_nothing_else() -> None:
    right = figures([(question("a", "r", 0, LEFT, LEFT), said(LEFT, 1))])
    wrong = figures([(question("a", "r", 0, LEFT, LEFT), said(TOP, 1))])
    assert right.giou is not None
    assert wrong.giou is not None
    assert (right.giou.value, wrong.giou.value) == (1.0, 0.0)


def test_nothing_predicted_for_an_empty_truth_leaves_no_figure_about_targets() -> None:
    found = values(figures([(question("a", "r", 0, None, None), said(None))]))
    assert (found["giou"], found["n_acc"]) == (1.0, 1.0)
    empty = (
        "ciou",
        "miou",
        "t_acc",
        "boundary_iou",
        "mean_length",
        "bits",
        *(f"p{level}" for level in LEVELS),
    )
    assert all(found[name] is None for name in empty)


Pixels = set[tuple[int, int]]


def pixels(mask: np.ndarray | None) -> Pixels:
    return set() if mask is None else {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}


def rim(mask: Pixels, height: int, width: int) -> Pixels:
    reach = max(1, round(0.02 * math.hypot(height, width)))
    around = list(product(range(-reach, reach + 1), repeat=2))
    return {(y, x) for y, x in mask if any((y + down, x + right) not in mask for down, right in around)}


def few_lines(cases: list[tuple[Question, Prediction]]) -> dict[str, float | None]:
    """All figures from sets of pixels, as their definitions say them."""
    ious, targets, nothings, rims, inside, both = [], [], [], [], 0, 0
    for asked, prediction in cases:
        record, image = asked.record, asked.image
        ignored = pixels(None if record.ignore is None else masks.decode(record.ignore))
        truth = pixels(None if record.rle is None else masks.decode(record.rle)) - ignored
        predicted = pixels(prediction.mask) - ignored
        union, common = len(truth | predicted), len(truth & predicted)
        inside, both = inside + common, both + union
        ious.append(0 if prediction.malformed else common / union if union else 1)
        if record.rle is None:
            nothings.append(not predicted and not prediction.malformed)
            continue
        targets.append((ious[-1], bool(predicted)))
        edges = [rim(one, image.height, image.width) for one in (truth, predicted)]
        of_rims = len(edges[0] | edges[1])
        rims.append(0 if prediction.malformed else len(edges[0] & edges[1]) / of_rims if of_rims else 1)
    lengths = [len(prediction.codes) for _, prediction in cases if prediction.codes]
    return {
        "giou": np.mean(ious),
        "ciou": inside / both,
        "miou": np.mean([iou for iou, _ in targets]),
        "n_acc": np.mean(nothings),
        "t_acc": np.mean([found for _, found in targets]),
        "boundary_iou": np.mean(rims),
        "mean_length": np.mean(lengths),
        "bits": np.mean(lengths) * 6,
        "malformed": np.mean([prediction.malformed for _, prediction in cases]),
        **{f"p{level}": np.mean([iou >= level for iou, _ in targets]) for level in LEVELS},
    }


def random_case(number: int) -> tuple[Question, Prediction]:
    """Sentence 0 or 1 of a record; predictions are near the truth, so that every level of precision is reached."""
    draw = np.random.default_rng([7, number // 2])
    height, width = draw.integers(6, 60, 2)
    blob = np.hypot(*(np.indices((height, width)) - draw.integers(3, 20, (2, 1, 1)))) < draw.integers(2, 12)
    target = None if draw.random() < 0.25 or not blob.any() else blob
    ignore = draw.random((height, width)) < 0.1 if draw.random() < 0.3 else None
    other = np.random.default_rng([8, number])
    kind, malformed = other.random(), other.random() < 0.1
    moved = np.roll(blob, other.integers(0, 4), axis=1) ^ (other.random((height, width)) < 0.01)
    mask = None if malformed or kind < 0.2 else moved if kind < 0.9 else np.zeros_like(blob)
    length = 0 if mask is None else int(other.integers(1, 17))
    asked = question(f"image-{number // 6:04d}", f"r{number // 2}", number % 2, target, ignore)
    if target is None:
        image = BenchmarkImage(asked.image.image_id, int(width), int(height), b"", (asked.record,))
        asked = Question(image, asked.record, number % 2, "expression")
    return asked, said(mask, length, malformed)


def test_a_thousand_random_cases_agree_with_a_few_lines() -> None:
    cases = [random_case(number) for number in range(1000)]
    found, expected = values(figures(cases)), few_lines(cases)
    assert found == pytest.approx(expected, rel=1e-12)
    assert 0 < expected["p0.9"] < expected["p0.5"] < 1  # type: ignore[operator]
    assert 0 < expected["n_acc"] < 1  # type: ignore[operator]
