import numpy as np
import pytest

from alto_models import metrics
from alto_models.referring_scores import SampleScores, metric_ratios


def scores(pairs: list[metrics.Overlap], malformed: list[bool] | None = None) -> SampleScores:
    return SampleScores(
        no_target=np.array([pair.target_area == 0 for pair in pairs]),
        empty=np.array([pair.predicted_area == 0 for pair in pairs]),
        malformed=np.array(malformed or [False] * len(pairs)),
        intersection=np.array([pair.intersection for pair in pairs]),
        union=np.array([pair.union for pair in pairs]),
        boundary_iou=np.array([pair.iou for pair in pairs]),
        length=np.array([0 if pair.predicted_area == 0 else 5 for pair in pairs]),
    )


def overlap(intersection: int, predicted: int, target: int) -> metrics.Overlap:
    return metrics.Overlap(
        intersection=intersection,
        union=predicted + target - intersection,
        predicted_area=predicted,
        target_area=target,
    )


def value(scores: SampleScores, name: str) -> float:
    above, below = metric_ratios(scores)[name]
    return float(above.sum() / below.sum())


# IoU 1/3; missed target; false alarm; rightly nothing; perfect.
HAND = [overlap(5, 10, 10), overlap(0, 0, 8), overlap(0, 6, 0), overlap(0, 0, 0), overlap(4, 4, 4)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("giou", (1 / 3 + 0 + 0 + 1 + 1) / 5),
        ("ciou", (5 + 4) / (15 + 8 + 6 + 4)),
        ("miou", (1 / 3 + 0 + 1) / 3),
        ("n_acc", 1 / 2),
        ("t_acc", 2 / 3),
        ("precision_0.5", 1 / 3),
        ("precision_0.9", 1 / 3),
        ("mean_length", 5.0),
        ("malformed", 0.0),
    ],
)
def test_hand_computed_case(name: str, expected: float) -> None:
    assert value(scores(HAND), name) == pytest.approx(expected)


def test_malformed_answer_is_a_miss_even_where_there_is_no_target() -> None:
    found = scores([overlap(0, 0, 0), overlap(0, 0, 8)], malformed=[True, True])
    assert value(found, "giou") == 0
    assert value(found, "n_acc") == 0
    assert value(found, "t_acc") == 0
    assert value(found, "malformed") == 1


def test_precision_counts_a_sample_that_just_reaches_the_level() -> None:
    assert value(scores([overlap(5, 5, 10)]), "precision_0.5") == 1


def test_agrees_with_the_scores_on_masks_over_random_cases() -> None:
    generator = np.random.default_rng(0)
    pairs = []
    for _ in range(1000):
        kinds = generator.random(2)
        prediction, target = (generator.random((6, 7)) < (0 if kind < 0.2 else kind) for kind in kinds)
        pairs.append(metrics.overlap(prediction, target))
    found = scores(pairs)
    assert value(found, "giou") == pytest.approx(metrics.giou(pairs))
    assert value(found, "ciou") == pytest.approx(metrics.ciou(pairs))
    assert value(found, "n_acc") == pytest.approx(metrics.n_acc(pairs))
    assert value(found, "t_acc") == pytest.approx(metrics.t_acc(pairs))
