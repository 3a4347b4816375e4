"""Training of ALToLLM in two processes, started by torchrun as a person or the runner starts it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data_contracts.errors import InputError
from jobs import altollm_sft
from jobs.runner.job_spec import JobSpec
from jobs.runner.worker import parse_config
from orchestration.profiles import render_profile
from tests.jobs.stage_processes import curve, train, written
from tests.jobs.tokenized_records import write_tokenized_records
from tests.jobs.tokenizer_example import ROOT, merged, parameters

STEPS = 10
CHANGES: dict[str, Any] = {
    "optimizer": "adamw",
    "steps": STEPS,
    "save_every": 4,
    "images_per_step": 4,
    "evaluated_images": 1,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "base").mkdir()
    return write_tokenized_records(folder) | {"base_weights": folder / "base"}


def job(
    folder: Path, inputs: dict[str, Path], processes: int, training: dict[str, Any] | None = None
) -> JobSpec:
    return written("altollm_sft", folder, inputs, processes, CHANGES | {"training": training or {}})


def trained(spec: JobSpec) -> JobSpec:
    finished = train(spec)
    assert finished.returncode == 0, finished.stderr
    return spec


def assert_same_training(one: JobSpec, other: JobSpec) -> None:
    first, second = curve(one), curve(other)
    assert first.keys() == second.keys()
    assert STEPS in first
    for step, point in first.items():
        second[step].pop("token_accuracy"), point.pop("token_accuracy")  # a mean over the means of passes
        assert second[step] == pytest.approx(point, rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def single(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> JobSpec:
    return trained(job(tmp_path_factory.mktemp("training") / "single", inputs, processes=1))


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", [None, "zero3"])
def test_two_processes_and_several_passes_train_like_one(
    single: JobSpec, inputs: dict[str, Path], deepspeed: str | None
) -> None:
    training = {"images_per_pass": 1, "deepspeed": deepspeed}
    two = job(single.work.parent / f"two_{deepspeed}", inputs, processes=2, training=training)
    assert_same_training(single, trained(two))
    assert not list(two.work.glob("process_*"))
    expected, found = (load_file(spec.staging / "model.safetensors") for spec in (single, two))
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_grpo_shares_its_prompts_out_over_two_processes(single: JobSpec, inputs: dict[str, Path]) -> None:
    changes = {"steps": 2, "prompts_per_step": 4, "kl_weight": 0.01, "evaluated_images": 1}
    start = inputs | {"altollm_sft": single.staging}
    two = trained(written("altollm_grpo", single.work.parent / "grpo", start, 2, changes))
    assert {"loss", "reward", "iou", "malformed"} <= curve(two)[2].keys()
    assert not list(two.work.glob("process_*"))
    before, after = (load_file(spec.staging / "model.safetensors") for spec in (single, two))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"optimizer": "muon", "training": {"deepspeed": "zero1"}}, "set optimizer to adamw"),
        ({"optimizer": "adamw", "training": {"deepspeed": "zero1", "precision": "fp16"}}, "fp32 or bf16"),
    ],
)
def test_what_deepspeed_cannot_do_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        parse_config(altollm_sft.Config, "altollm_sft", merged(parameters("altollm_sft"), changes))


@pytest.mark.slow
def test_both_stages_in_the_precision_and_the_sharing_of_profile_paper(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """bfloat16 weights meet float32 pixels, codes and rewards everywhere."""
    trainings = {
        stage: yaml.safe_load(render_profile(ROOT, "paper"))[stage]["training"]
        for stage in ("altollm_sft", "altollm_grpo")
    }
    fine_tuning = trainings["altollm_sft"] | {"images_per_pass": 2}
    tuned = trained(job(tmp_path / "sft", inputs, processes=1, training=fine_tuning))
    assert "sampled_giou" in curve(tuned)[6]
    changes = {
        "steps": 2,
        "kl_weight": 0.01,
        "evaluated_images": 1,
        "gradient_checkpointing": True,
        "training": trainings["altollm_grpo"] | {"prompts_per_pass": 1},
    }
    start = inputs | {"altollm_sft": tuned.staging}
    moved = trained(written("altollm_grpo", tmp_path / "grpo", start, 1, changes))
    assert {"loss", "reward", "kl"} <= curve(moved)[2].keys()
    kinds = {values.dtype for values in load_file(moved.staging / "model.safetensors").values()}
    assert kinds == {torch.float32}
