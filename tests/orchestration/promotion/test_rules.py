"""The rules on answers whose quality is known beforehand."""

import pandas as pd
import pytest

from orchestration.promotion.rules import (
    Finding,
    PairedSamples,
    PromotionRules,
    compare_with_champion,
)

RULES = PromotionRules(
    mode="adaptive",
    gains=("giou", "mean_length"),
    max_loss={"giou": 0.01, "mean_length": 1.0, "malformed": 0.02, "n_acc": 0.05},
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
