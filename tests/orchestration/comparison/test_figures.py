"""Figures of two versions, paired where they answered the same questions."""

from pathlib import Path

import pandas as pd
import pytest

from jobs.benchmark import CHALLENGER
from jobs.benchmarking.results import ADAPTIVE
from orchestration.comparison.figures import (
    ANSWER_KEY,
    MASK_KEY,
    QUESTION_KEY,
    Figure,
    answer_ratios,
    compare_tables,
    mask_ratios,
    tokenizer_ratios,
)
from orchestration.comparison.samples import find_extremes
from tests.jobs.test_benchmark import read_samples, run_benchmark


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    run_benchmark(folder, images=8)
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> pd.DataFrame:
    samples = read_samples(folder / "run" / "output")
    own = samples[(samples["system"] == CHALLENGER) & (samples["mode"] == ADAPTIVE)]
    assert (own["iou"] > 0.1).any()
    return own


def with_iou(answers: pd.DataFrame, iou: float) -> pd.DataFrame:
    target = ~answers["no_target"]
    return answers.assign(
        intersection=answers["intersection"].where(~target, (answers["union"] * iou).round().astype(int))
    )


def figures(before: pd.DataFrame | None, after: pd.DataFrame | None) -> dict[str, Figure]:
    return {one.metric: one for one in compare_tables(before, after, QUESTION_KEY, mask_ratios)}


def test_equal_answers_are_the_same_in_every_figure(answers: pd.DataFrame) -> None:
    shuffled = answers.sample(frac=1, random_state=1)
    for figure in figures(answers, shuffled).values():
        assert figure.before == figure.after
        assert figure.difference is None or figure.reading == "the same"


def test_swapping_the_sides_negates_differences(answers: pd.DataFrame) -> None:
    better = with_iou(answers, 0.95)
    there, back = figures(answers, better), figures(better, answers)
    assert there["miou"].reading == "better"
    assert back["miou"].reading == "worse"
    for metric, figure in there.items():
        other = back[metric]
        assert (figure.before, figure.after) == (other.after, other.before)
        if figure.difference is not None:
            assert other.difference is not None
            assert figure.difference == pytest.approx(
                (-other.difference.value, -other.difference.high, -other.difference.low), abs=1e-12
            )


def test_a_shorter_answer_is_the_better_one(answers: pd.DataFrame) -> None:
    shorter = answers.assign(length=answers["length"].clip(upper=1))
    found = figures(answers, shorter)["mean_length"]
    assert found.difference is not None
    assert found.difference.high < 0
    assert found.reading == "better"


def test_other_questions_have_no_interval(answers: pd.DataFrame) -> None:
    fewer = figures(answers, answers.iloc[3:])["giou"]
    changed = figures(answers, answers.assign(target_area=answers["target_area"] + 1))["giou"]
    assert fewer.difference is changed.difference is None
    assert changed.before == changed.after
    assert changed.reading == ""


def test_what_one_side_lacks_is_left_open(answers: pd.DataFrame) -> None:
    found = figures(None, answers)["giou"]
    assert found.before is None
    assert found.after is not None
    assert compare_tables(None, None, QUESTION_KEY, mask_ratios) == ()


def test_masks_of_the_tokenizer_are_paired() -> None:
    masks = pd.DataFrame(
        {
            "image_id": ["1", "1", "2", "3"],
            "view": ["whole", "crop", "whole", "whole"],
            "area": [9, 9, 4, 7],
            "boundary_length": [3, 3, 2, 3],
            "iou": [0.5, 0.6, 0.7, 0.8],
            "boundary_iou": [0.4, 0.5, 0.6, 0.7],
            "length": [4, 4, 2, 3],
        }
    )
    better = masks.assign(iou=masks["iou"] + 0.1)
    found = {one.metric: one for one in compare_tables(masks, better, MASK_KEY, tokenizer_ratios)}
    assert found["iou"].difference == pytest.approx((0.1, 0.1, 0.1))
    assert found["iou"].reading == "better"
    assert found["mean_length"].reading == "the same"


def test_answers_in_words_are_paired() -> None:
    asked = pd.DataFrame(
        {"image_id": ["1", "1", "2"], "question_id": ["a", "b", "a"], "score": [1.0, 0.0, 0.0]}
    )
    (found,) = compare_tables(asked, asked.assign(score=1.0).iloc[::-1], ANSWER_KEY, answer_ratios)
    assert (found.before, found.after) == (pytest.approx(1 / 3), 1.0)
    assert found.reading == "better"


def test_the_largest_gains_and_losses_are_drawn_once_an_image(folder: Path, answers: pd.DataFrame) -> None:
    shards = {path.name: path for path in (folder / "prepared" / "scenes").iterdir()}
    worse = with_iou(answers, 0.01)
    found = find_extremes("scenes", answers, worse, shards)
    assert found is not None
    assert found.gains == ()
    losses = [one.iou_after - one.iou_before for one in found.losses]
    assert losses
    assert losses == sorted(losses)
    assert len({one.image_id for one in found.losses}) == len(losses)
    assert all(one.picture is not None and one.picture.startswith(b"\x89PNG") for one in found.losses)
    back = find_extremes("scenes", worse, answers, {})
    assert back is not None
    assert [one.expression for one in back.gains] == [one.expression for one in found.losses]
    assert all(one.picture is None for one in back.gains)
    assert find_extremes("scenes", answers, answers.iloc[1:], shards) is None
