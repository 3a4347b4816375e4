"""The rules on answers whose quality is known beforehand."""

import pandas as pd
import pytest

from jobs.benchmarking.speed import Speed, Timed, speed_lines
from orchestration.promotion.rules import (
    Finding,
    PairedSamples,
    PromotionRules,
    compare_with_champion,
)
from orchestration.promotion.speed_rule import compare_speed
from orchestration.promotion.vqa_rule import PairedAnswers, compare_answers

RULES = PromotionRules(
    mode="adaptive",
    gains=("giou", "mean_length"),
    max_loss={"giou": 0.01, "mean_length": 1.0, "malformed": 0.02, "n_acc": 0.05},
    max_vqa_loss={"pope": 0.05},
    max_slowdown=0.5,
    resamples=200,
    confidence_level=0.95,
)


def answers(iou: float = 0.5, length: int = 8, malformed_every: int = 0, images: int = 60) -> pd.DataFrame:
    """One sample an image, IoU varying by image around `iou`, so that only a paired comparison is sharp."""
    rows = []
    for number in range(images):
        reached = min(1.0, iou + 0.3 * ((number % 7) / 6 - 0.5))
        malformed = bool(malformed_every) and number % malformed_every == 0
        rows.append(
            {
                "system": "altollm_grpo",
                "mode": "adaptive",
                "image_id": f"image-{number:03d}",
                "record_id": "a",
                "expression_index": 0,
                "no_target": False,
                "predicted_area": 100,
                "malformed": malformed,
                "intersection": 0 if malformed else round(1000 * reached),
                "union": 1000,
                "boundary_iou": reached / 2,
                "length": length,
            }
        )
    return pd.DataFrame(rows)


def compared(challenger: pd.DataFrame, champion: pd.DataFrame) -> list[Finding]:
    pair = PairedSamples(benchmark="scenes", codebook_size=256, challenger=challenger, champion=champion)
    return compare_with_champion(RULES, [pair])


def failed(findings: list[Finding]) -> list[str]:
    return [finding.rule.split()[0] for finding in findings if not finding.passed]


def test_a_better_challenger_breaks_no_rule() -> None:
    findings = compared(answers(iou=0.55), answers(iou=0.5))
    assert failed(findings) == []
    assert findings[-1].found == "scenes: giou"


def test_a_shorter_challenger_of_equal_quality_is_better() -> None:
    assert compared(answers(length=6), answers(length=8))[-1].found == "scenes: mean_length"


def test_an_equal_challenger_gains_nothing() -> None:
    assert failed(compared(answers(), answers())) == ["better"]


def test_a_worse_challenger_loses_too_much() -> None:
    assert failed(compared(answers(iou=0.45), answers(iou=0.5))) == ["giou", "better"]


def test_better_masks_do_not_excuse_longer_ones() -> None:
    assert failed(compared(answers(iou=0.6, length=11), answers(iou=0.5, length=8))) == ["mean_length"]


def test_better_masks_do_not_excuse_malformed_answers() -> None:
    assert failed(compared(answers(iou=0.6, malformed_every=20), answers(iou=0.5))) == ["malformed"]


def test_a_metric_that_is_not_defined_breaks_no_rule() -> None:
    finding = next(one for one in compared(answers(), answers()) if one.rule.startswith("n_acc"))
    assert finding.passed
    assert finding.found == "not defined here"


def test_other_samples_are_not_compared() -> None:
    findings = compared(answers(iou=0.9), answers(images=59))
    assert failed(findings) == ["measured", "better"]


@pytest.mark.parametrize("images", [8, 60])
def test_a_gain_has_to_be_sure(images: int) -> None:
    """The same mean gain, but from one image in eight: with few images it may be chance."""
    champion, challenger = answers(images=images), answers(images=images)
    challenger.loc[challenger.index % 8 == 0, "intersection"] += 300
    assert (failed(compared(challenger, champion)) == []) is (images == 60)


def said(right_of_ten: int, images: int = 100) -> pd.DataFrame:
    """A question an image; of ten in a row that many are answered right."""
    return pd.DataFrame(
        {
            "image_id": [f"image-{number:03d}" for number in range(images)],
            "question_id": "q",
            "score": [float(number % 10 < right_of_ten) for number in range(images)],
        }
    )


@pytest.mark.parametrize(
    ("right", "passed"),
    [(8, True), (9, True), (7, False)],
    ids=["as many right", "more right", "a tenth fewer right"],
)
def test_what_the_champion_knew_must_not_be_forgotten(right: int, passed: bool) -> None:
    pair = PairedAnswers(benchmark="pope", scoring="pope", challenger=said(right), champion=said(8))
    finding = compare_answers(RULES, pair)
    assert finding.passed is passed
    assert finding.rule == "share of right answers worse by at most 0.05"


def test_answers_to_other_questions_are_not_compared() -> None:
    pair = PairedAnswers(benchmark="pope", scoring="pope", challenger=said(9, 99), champion=said(8))
    assert compare_answers(RULES, pair).found == "the benchmark has changed since"


def speed(*seconds: float, machine: str = "GPU A", answers: int = 10) -> Speed:
    """One shard for each of `seconds`, and others' timings beside them."""

    def timed(system: str, took: float) -> Timed:
        return Timed(
            machine=machine,
            system=system,
            mode="adaptive",
            answers=answers,
            mask_tokens=50,
            seconds=took,
            processor_seconds=1.0,
        )

    return Speed(
        samples_sha256="",
        shards=[[timed("altollm_grpo", took), timed("untrained", 99.0)] for took in seconds],
    )


def compared_speed(ours: Speed | None, theirs: Speed | None) -> Finding:
    return compare_speed("scenes", ours, theirs, ("altollm_grpo", "adaptive"), 0.5)


@pytest.mark.parametrize(
    ("ours", "passed", "found"),
    [
        (speed(2.0, 2.0, 2.0), True, "1.00 times"),
        (speed(2.9, 2.9, 9.0), True, "1.45 times"),  # one shard met something else
        (speed(3.1, 3.1, 2.0), False, "1.55 times"),
        (speed(1.0, 1.0, 1.0, machine="GPU B"), False, "not comparable: on GPU B, the other on GPU A"),
        (speed(1.0, 1.0), False, "not comparable: the shards have changed"),
        (None, False, "not measured here"),
    ],
)
def test_slower_answers_are_refused_where_they_can_be_compared(
    ours: Speed | None, passed: bool, found: str
) -> None:
    finding = compared_speed(ours, speed(2.0, 2.0, 2.0))
    assert finding.passed is passed
    assert finding.found.startswith(found)


def test_a_champion_without_times_says_how_to_go_on() -> None:
    finding = compared_speed(speed(1.0), None)
    assert not finding.passed
    assert "set promotion.max_slowdown to null" in finding.found


def test_speed_is_told_over_all_shards() -> None:
    """20 answers in 8 s, with 100 mask tokens."""
    assert (
        speed_lines(speed(2.0, 6.0))[0]
        == "altollm_grpo, adaptive: 0.4 s an answer, 12.5 mask tokens a second"
    )
    assert speed_lines(speed(2.0, 6.0))[-1] == "on GPU A"


def test_on_a_processor_its_own_time_is_compared() -> None:
    machine = "processor AMD, 1 threads"
    assert compared_speed(speed(9.0, machine=machine), speed(2.0, machine=machine)).found == "1.00 times"
