"""SFT, GRPO and base weights on tiny data: what they leave, exact resume, and what they refuse."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from alto_models.altollm import rewards, supervised
from alto_models.altollm.answering import AltoLLM
from data_contracts.errors import InputError
from jobs import altollm_grpo, altollm_sft, base_weights, grpo_sweep
from jobs.grpo_training import rollouts
from jobs.runner.context import StageReport
from jobs.runner.metric_log import MetricLog
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.tokenized_records import write_tokenized_records
from tests.jobs.tokenizer_example import SIDE, context, parameters


class Killed(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Everything SFT reads, with no base weights."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "base").mkdir()
    return write_tokenized_records(folder) | {"base_weights": folder / "base"}


def run_sft(inputs: dict[str, Path], folder: Path, **changes: Any) -> tuple[Path, StageReport]:
    config = altollm_sft.Config.model_validate(parameters("altollm_sft") | changes)
    run = context(folder, "altollm_sft", **inputs)
    return run.output, altollm_sft.run(config, run)


def run_grpo(inputs: dict[str, Path], folder: Path, **changes: Any) -> tuple[Path, StageReport]:
    config = altollm_grpo.Config.model_validate(parameters("altollm_grpo") | changes)
    run = context(folder, "altollm_grpo", **inputs)
    return run.output, altollm_grpo.run(config, run)


@pytest.fixture(scope="module")
def sft(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageReport]:
    return run_sft(inputs, tmp_path_factory.mktemp("sft"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, module: ModuleType, function: str) -> None:
    """Let the `step`-th call of the module's function, once a scored batch, raise instead."""
    calls = 0
    score = getattr(module, function)

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step:
            raise Killed
        return score(*arguments)

    monkeypatch.setattr(module, function, counted)


def test_sft_leaves_a_checkpoint_that_answers(sft: tuple[Path, StageReport]) -> None:
    output, report = sft
    pictures = {f"pictures/{name}.png" for name in ("curves", "samples", "progress")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "curves.parquet", *pictures} <= set(
        contents(output)
    )
    llm = AltoLLM.load(output)
    assert llm.vocabulary.size == TINY.codebook_size
    assert {"start_giou", "full_giou", "adaptive_giou", "adaptive_mean_length"} <= set(report.figures)
    assert [check.name for check in report.checks if check.blocking] == ["training_health"]


def test_sft_learns_from_masks_and_leaves_frozen_parts(
    inputs: dict[str, Path], sft: tuple[Path, StageReport], tmp_path: Path
) -> None:
    (tmp_path / "altollm").symlink_to(sft[0])
    changes = {
        "frozen": ["vision_tower", "projector"],
        "gradient_checkpointing": True,
        "mask_loss": {"weight": 1.0, "dice_weight": 0.25, "sharpness": 2.0},
        "steps": 2,
    }
    run_sft(inputs | {"base_weights": tmp_path}, tmp_path, **changes)
    run = tmp_path / "altollm_sft"
    points = list(MetricLog(run / "work" / "metrics.jsonl").read())
    first = points[0].values
    assert first["loss"] == pytest.approx(
        first["cross_entropy"] + first["mask_bce"] + 0.25 * first["mask_dice"], rel=1e-5
    )
    before, after = (AltoLLM.load(folder).model.state_dict() for folder in (sft[0], run / "output"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(".language_model." in name or name == "lm_head.weight" for name in moved)


def test_both_stages_see_an_image_in_several_tiles(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    inputs = write_tokenized_records(tmp_path, width=2 * SIDE) | {"base_weights": tmp_path / "base"}
    output, _ = run_sft(inputs, tmp_path / "tiled", max_tiles=2)
    tuned, _ = run_grpo(inputs | {"altollm_sft": output}, tmp_path / "tiled", kl_weight=0.1)
    llm = AltoLLM.load(tuned)
    (embedded,) = llm.encode_images([np.zeros((SIDE, 2 * SIDE, 3), np.uint8)])
    assert len(embedded) == 3 * llm.model.config.image_seq_length  # two tiles, and the whole image


@pytest.mark.parametrize("step", [4, 8])
def test_a_killed_sft_ends_like_an_uninterrupted_one(
    inputs: dict[str, Path],
    sft: tuple[Path, StageReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, step, supervised, "score_answers")
        with pytest.raises(Killed):
            run_sft(inputs, tmp_path)
    (tmp_path / "altollm_sft" / "output").rmdir()
    output, report = run_sft(inputs, tmp_path)
    assert contents(output) == contents(sft[0])
    assert report == sft[1]


def test_a_killed_grpo_ends_like_an_uninterrupted_one(
    inputs: dict[str, Path],
    sft: tuple[Path, StageReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from alto_models.altollm import scoring

    given = inputs | {"altollm_sft": sft[0]}
    whole, report = run_grpo(given, tmp_path / "whole", kl_weight=0.1)
    with monkeypatch.context() as patch:
        kill_at(patch, 5, scoring, "hidden_states")  # the policy and the reference are scored in each step
        with pytest.raises(Killed):
            run_grpo(given, tmp_path / "killed", kl_weight=0.1)
    (tmp_path / "killed" / "altollm_grpo" / "output").rmdir()
    output, again = run_grpo(given, tmp_path / "killed", kl_weight=0.1)
    assert contents(output) == contents(whole)
    assert again == report


def test_grpo_moves_the_language_model_only(
    inputs: dict[str, Path], sft: tuple[Path, StageReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An untrained model earns nothing whatever it says; here every answer earns something of its own.
    earned = iter(range(100_000))
    monkeypatch.setattr(rollouts, "reward", lambda *_, **__: rewards.Reward(next(earned) % 7 / 7, 0.0, 0.0))
    output, _ = run_grpo(inputs | {"altollm_sft": sft[0]}, tmp_path)
    before, after = (AltoLLM.load(folder).model.state_dict() for folder in (sft[0], output))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(".language_model." in name or name == "lm_head.weight" for name in moved)


@pytest.mark.parametrize("adaptive_share", [0.0, 1.0])
def test_rewards_know_which_length_was_asked_for(
    adaptive_share: float,
    inputs: dict[str, Path],
    sft: tuple[Path, StageReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def reward(*arguments: Any, adaptive: bool) -> rewards.Reward:
        asked.append(adaptive)
        return rewards.reward(*arguments, adaptive=adaptive)

    monkeypatch.setattr(rollouts, "reward", reward)
    run_grpo(inputs | {"altollm_sft": sft[0]}, tmp_path, adaptive_share=adaptive_share, steps=1)
    assert set(asked) == {bool(adaptive_share)}


def test_a_reward_that_is_not_finite_names_its_sample(
    inputs: dict[str, Path], sft: tuple[Path, StageReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "reward", lambda *_, **__: rewards.Reward(float("nan"), 0.0, 0.0))
    with pytest.raises(ArithmeticError, match="discs/"):
        run_grpo(inputs | {"altollm_sft": sft[0]}, tmp_path)


@pytest.mark.slow
def test_a_sweep_at_the_weight_of_grpo_measures_what_grpo_does(
    inputs: dict[str, Path], sft: tuple[Path, StageReport], tmp_path: Path
) -> None:
    given = inputs | {"altollm_sft": sft[0]}
    told = parameters("altollm_grpo")
    _, report = run_grpo(given, tmp_path, **told)
    config = grpo_sweep.Config.model_validate(told | {"reward": {"well_formed": 0.1, "length": 77.0}})
    run = dataclasses.replace(
        context(tmp_path, "grpo_sweep", **given), partition=str(told["reward"]["length"])
    )
    swept = grpo_sweep.run(config, run)
    assert swept.figures == {"length_weight": told["reward"]["length"], **report.figures}
    assert not any(check.blocking for check in swept.checks)
    assert not list(run.output.glob("*.safetensors"))
    assert (run.output / "curves.parquet").exists()


def test_the_partition_of_a_sweep_is_a_weight() -> None:
    assert [grpo_sweep.length_weight(key) for key in ("0", "0.005", "1e-3")] == [0.0, 0.005, 0.001]
    for wrong in ("short", "-1", "nan", "inf", None):
        with pytest.raises(InputError, match="is not a weight"):
            grpo_sweep.length_weight(wrong)


def test_a_record_whose_mask_has_no_codes_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    path = next(inputs["mask_tokens"].glob("*.parquet"))
    table = pq.read_table(path)
    kept = table.filter(pa.compute.field("record_id") != "both")
    pq.write_table(kept, tmp_path / path.name)
    with pytest.raises(InputError, match="both"):
        run_sft(inputs | {"mask_tokens": tmp_path}, tmp_path / "run")


def test_sft_starts_from_base_weights(
    inputs: dict[str, Path], sft: tuple[Path, StageReport], tmp_path: Path
) -> None:
    config = base_weights.Config.model_validate({"altollm": source(sft[0])})
    run = context(tmp_path, "base_weights")
    report = base_weights.run(config, run)
    assert report.figures["altollm_licence"] == "Apache-2.0"
    assert contents(run.output / "altollm")["model.safetensors"] == contents(sft[0])["model.safetensors"]
    _, resumed = run_sft(inputs | {"base_weights": run.output}, tmp_path)
    assert resumed.figures["start_malformed"] == sft[1].figures["full_malformed"]


def source(folder: Path) -> dict[str, str]:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return {"folder": str(folder), "sha256": digest, "licence": "Apache-2.0"}


def test_base_weights_of_another_checksum_are_refused(sft: tuple[Path, StageReport], tmp_path: Path) -> None:
    config = base_weights.Config.model_validate({"altollm": source(sft[0]) | {"sha256": "0" * 64}})
    with pytest.raises(InputError, match="checksum"):
        base_weights.run(config, context(tmp_path, "base_weights"))


def test_missing_base_weights_are_named(tmp_path: Path) -> None:
    missing = {"folder": str(tmp_path / "nowhere"), "sha256": "0" * 64, "licence": "none"}
    with pytest.raises(InputError, match="nowhere"):
        base_weights.run(base_weights.Config.model_validate({"altollm": missing}), context(tmp_path, "b"))
