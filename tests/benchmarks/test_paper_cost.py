"""The cost estimate in docs/operations.md is that of the profile `paper` as it is now."""

from dataclasses import replace

import pytest
import yaml

from orchestration.profiles import render_profile
from tests.benchmarks.paper_cost import ASSUMED, REPORT, ROOT, estimate, mask_flops, report

MASK = {"image": 3e12, "transformers": 1.2e12, "all": 4.2e12}


def parameters() -> dict:
    return yaml.safe_load(render_profile(ROOT, "paper"))


def test_cost_follows_steps_batches_and_answers() -> None:
    changed = parameters()
    before = {cost.stage: cost.gpu_hours for cost in estimate(changed, MASK)}
    changed["tokenizer_stage1"]["steps"] *= 2
    changed["altollm_sft"]["images_per_step"] *= 3
    changed["altollm_grpo"]["group_size"] *= 2
    after = {cost.stage: cost.gpu_hours for cost in estimate(changed, MASK)}
    assert after["tokenizer_stage1"] == pytest.approx(2 * before["tokenizer_stage1"])
    assert after["altollm_sft"] == pytest.approx(3 * before["altollm_sft"])
    assert 1 < after["altollm_grpo: answers"] / before["altollm_grpo: answers"] < 2
    assert after["benchmark: answers"] == before["benchmark: answers"]


def test_gpu_hours_are_flops_over_what_a_gpu_does() -> None:
    (cost, *_) = estimate(parameters(), MASK)
    assert cost.flops == 300_000 * 64 * 4.2e12
    assert cost.gpu_hours == pytest.approx(cost.flops / (989e12 * 0.25) / 3600)
    assert replace(cost, share=0.5).gpu_hours == pytest.approx(cost.gpu_hours / 2)


def test_the_language_model_assumed_has_the_published_size() -> None:
    assert ASSUMED.vision_parameters + ASSUMED.text_parameters == pytest.approx(8.08e9, rel=0.01)


@pytest.mark.slow
def test_the_documented_estimate_is_up_to_date() -> None:
    mask = mask_flops()
    assert mask["image"] == pytest.approx(2.96e12, rel=0.02)  # SAM ViT-L at 1024 pixels, as published
    assert report(estimate(parameters(), mask)) in REPORT.read_text(), (
        "python -m tests.benchmarks.paper_cost --write"
    )
