"""Updates of a GRPO run on a tiny untrained model: ratios, clipping, exact resume, the reference."""

import signal
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from alto_models.altollm import generation
from alto_models.training.precision import autocast
from data_contracts.errors import InputError, JobStopped
from jobs.grpo_training import training
from jobs.grpo_training.training import Optimisation
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.grpo_example import optimisation, reward_every_answer
from tests.jobs.tokenizer_example import write_prepared_records


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared_records(tmp_path_factory.mktemp("records"), "discs")


@pytest.fixture(autouse=True)
def _every_answer_earns_something(monkeypatch: pytest.MonkeyPatch) -> None:
    reward_every_answer(monkeypatch)


def step(run: Optimisation, number: int) -> Tensor:
    """Loss of a step in a single pass."""
    (rollout,) = run.draw(number, [range(run.config.prompts_per_step)])
    return run.forward(rollout).loss


def gradients(run: Optimisation, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, run.trained, allow_unused=False))


def move_far(run: Optimisation) -> None:
    with torch.no_grad():
        for parameter in run.trained:
            parameter += 0.2 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(len(parameter))
            )


@pytest.mark.parametrize("variant", ["grpo", "dr_grpo"])
def test_the_first_update_is_the_unclipped_gradient_and_the_second_clips(
    records: Path, tmp_path: Path, variant: str
) -> None:
    run = optimisation(records, tmp_path, updates_per_rollout=2, variant=variant, group_size=4, kl_weight=0.0)
    first = gradients(run, step(run, 0))
    (rollout,) = run.rollouts
    assert rollout.advantages.abs().sum() > 0
    policy = run._log_probs(rollout)
    divisor = policy.counted.sum(1) if variant == "grpo" else TINY.max_length
    plain = -(policy.log_probs.sum(1) * rollout.advantages / divisor).mean()
    for ours, expected in zip(first, gradients(run, plain), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)

    move_far(run)
    second = step(run, 1)
    assert run.rollouts == [rollout]
    policy = run._log_probs(rollout)
    ratio = (policy.log_probs - rollout.old_log_probs).exp()
    gain, clip = rollout.advantages[:, None], run.config.clip
    unclipped, clipped = ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain
    assert (clipped < unclipped).any()
    each = (torch.minimum(unclipped, clipped) * policy.counted).sum(1) / divisor
    torch.testing.assert_close(second, -each.mean())

    step(run, 2)
    assert run.rollouts[0] is not rollout


@pytest.mark.parametrize(("end", "save_every"), [(KeyboardInterrupt, 2), (JobStopped, 6)])
def test_a_run_killed_or_stopped_between_updates_ends_like_an_uninterrupted_one(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException], save_every: int
) -> None:
    changes = {"updates_per_rollout": 2, "steps": 6, "save_every": save_every, "kl_weight": 0.1}
    whole = optimisation(records, tmp_path / "whole", **changes)
    start = [parameter.detach().clone() for parameter in whole.trained]
    whole.run()
    killed = optimisation(records, tmp_path / "killed", **changes)
    with monkeypatch.context() as patch:
        prepare = killed.training.prepare

        def stop(number: int) -> None:
            if number == 3 and end is KeyboardInterrupt:
                raise end
            if (
                number == 2 and end is JobStopped
            ):  # it ends after the next update, the last with these answers
                killed.context.stop._take(signal.SIGUSR1, None)
            prepare(number)

        patch.setattr(killed.training, "prepare", stop)
        with pytest.raises(end):
            killed.run()
    (tmp_path / "killed" / "altollm_grpo" / "output").rmdir()
    again = optimisation(records, tmp_path / "killed", **changes)
    assert again.training.restore() == (2 if end is KeyboardInterrupt else 4)
    again.run()
    for before, expected, found in zip(start, whole.trained, again.trained, strict=True):
        assert torch.equal(expected, found)
        assert not torch.equal(before, found)
    curves = [list(run.context.metric_log.read()) for run in (whole, again)]
    assert curves[0] == curves[1]
    assert curves[0]


def test_checkpoints_between_updates_of_a_rollout_are_refused(records: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="multiple of updates_per_rollout"):
        optimisation(records, tmp_path, updates_per_rollout=2, save_every=3)


def test_kl_to_the_reference_counts_once_the_policy_has_moved(records: Path, tmp_path: Path) -> None:
    run = optimisation(records, tmp_path, kl_weight=0.5)
    scored = []
    log_probs = run._log_probs
    run._log_probs = lambda rollout: scored.append(rollout) or log_probs(rollout)
    step(run, 0)
    assert len(scored) == 2  # once under the reference, once under the policy
    (rollout,) = run.rollouts
    torch.testing.assert_close(rollout.reference_log_probs, rollout.old_log_probs, atol=0, rtol=0)
    move_far(run)
    step(run, 1)
    (rollout,) = run.rollouts
    gap = rollout.reference_log_probs - rollout.old_log_probs
    assert gap.abs().max() > 1e-3
    assert not rollout.reference_log_probs.requires_grad


def test_a_prompt_longer_than_the_model_reads_names_its_sample(records: Path, tmp_path: Path) -> None:
    run = optimisation(records, tmp_path)
    run.llm.model.config.text_config.max_position_embeddings = generation.MAX_TEXT_TOKENS + 12
    with pytest.raises(InputError, match=r"discs/\w+: the prompt has \d+ tokens"):
        step(run, 0)


def test_without_kl_there_is_no_reference(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(training, "ReferenceWeights", lambda model: made.append(model))
    run = optimisation(records, tmp_path, kl_weight=0.0)
    step(run, 0)
    assert not made
    assert run.rollouts[0].reference_log_probs is None


def test_what_a_prompt_is_asked_and_answered_depends_on_its_place_only(records: Path, tmp_path: Path) -> None:
    make = optimisation(records, tmp_path, prompts_per_step=4).maker.make
    whole = make(5, range(4))
    parts = [make(5, range(0, 1)), make(5, range(1, 4))]
    assert [sample for part in parts for sample in part.samples] == whole.samples
    assert [group for part in parts for group in part.groups] == whole.groups
    assert len({tuple(answer) for group in whole.groups for answer in group.answers}) > 4
    torch.testing.assert_close(torch.cat([part.advantages for part in parts]), whole.advantages)


def test_passes_and_gradient_checkpointing_train_like_a_single_pass(records: Path, tmp_path: Path) -> None:
    shared = {"steps": 4, "updates_per_rollout": 2, "save_every": 2, "kl_weight": 0.1, "prompts_per_step": 2}
    plain = optimisation(records, tmp_path / "plain", **shared)
    plain.run()
    passes = {"training": {"prompts_per_pass": 1}, "gradient_checkpointing": True}
    other = optimisation(records, tmp_path / "other", **passes, **shared)
    other.run()
    for expected, found in zip(plain.trained, other.trained, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_reference_and_policy_are_scored_in_the_same_precision(records: Path, tmp_path: Path) -> None:
    run = optimisation(records, tmp_path, kl_weight=0.5, training={"precision": "bf16"}, prompts_per_step=1)
    with autocast("bf16", torch.device("cpu")):
        step(run, 0)
    (rollout,) = run.rollouts
    torch.testing.assert_close(rollout.reference_log_probs, rollout.old_log_probs, atol=0, rtol=0)
    precise = run._log_probs(rollout).log_probs
    assert not torch.equal(precise, rollout.old_log_probs)
    torch.testing.assert_close(precise, rollout.old_log_probs, atol=0.1, rtol=0)
