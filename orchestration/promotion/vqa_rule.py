"""The rule that a challenger must not have forgotten how to answer in words."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from alto_models.bootstrap import ImageBootstrap
from jobs.benchmarking.vqa_results import Scoring
from orchestration.promotion.rules import Finding, PromotionRules, loss_finding, other_samples

KEY = ["image_id", "question_id"]


@dataclass(frozen=True, kw_only=True)
class PairedAnswers:
    """Tables of `VQA_SAMPLES_SCHEMA`: what challenger and champion answered."""

    benchmark: str
    scoring: Scoring
    challenger: pd.DataFrame
    champion: pd.DataFrame


def compare_answers(rules: PromotionRules, pair: PairedAnswers) -> Finding:
    """The share of right answers (of VQAv2: the mean soft accuracy) under `rules.max_vqa_loss`."""
    ours, theirs = (part.sort_values(KEY, ignore_index=True) for part in (pair.challenger, pair.champion))
    if not ours[KEY].equals(theirs[KEY]):
        return other_samples(pair.benchmark)
    bootstrap = ImageBootstrap.draw(
        ours["image_id"].tolist(), resamples=rules.resamples, seed=0, level=rules.confidence_level
    )
    everyone = np.ones(len(ours))
    scores = (part["score"].to_numpy(np.float64) for part in (ours, theirs))
    improvement = bootstrap.difference(*((score, everyone) for score in scores))
    return loss_finding(
        pair.benchmark, "share of right answers", improvement, rules.max_vqa_loss[pair.scoring]
    )
