"""Updates of a GRPO run on a tiny untrained model: ratios, clipping, exact resume, the reference."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from alto_models.altollm import answering, generation
from alto_models.altollm.answering import Answer
from alto_models.altollm.rewards import Reward
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.training import processes
from data_contracts.errors import InputError
from jobs.altollm_grpo import Config
from jobs.grpo_training import rollouts, training
from jobs.grpo_training.training import Optimisation
from tests.alto_models.altollm.tiny import untrained
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.tokenizer_example import context, parameters, write_prepared_records


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared_records(tmp_path_factory.mktemp("records"), "discs")


@pytest.fixture(autouse=True)
def _every_answer_earns_something(monkeypatch: pytest.MonkeyPatch) -> None:
    def earned(answer: Answer, *_: Any, **__: Any) -> Reward:
        return Reward(len(answer.text) % 7 / 7, 0.0, 0.0)

    monkeypatch.setattr(rollouts, "reward", earned)
    monkeypatch.setattr(answering, "generate", partial(generation.generate, max_text_tokens=8))


def optimisation(records: Path, folder: Path, **changes: Any) -> Optimisation:
    config = Config.model_validate(parameters("altollm_grpo") | changes)
    torch.manual_seed(3)
    tokenizer = MaskTokenizer(TINY).eval()
    run = context(folder, "altollm_grpo", prepare_referring=records)
    return Optimisation(config, run, untrained(), tokenizer)


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
    first = gradients(run, run.step(0).loss)
    rollout = run.rollout
    assert rollout is not None
    assert rollout.advantages.abs().sum() > 0
    policy = run._log_probs(rollout)
    divisor = policy.counted.sum(1) if variant == "grpo" else TINY.max_length
    plain = -(policy.log_probs.sum(1) * rollout.advantages / divisor).mean()
    for ours, expected in zip(first, gradients(run, plain), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)

    move_far(run)
    second = run.step(1).loss
    assert run.rollout is rollout
    policy = run._log_probs(rollout)
    ratio = (policy.log_probs - rollout.old_log_probs).exp()
    gain, clip = rollout.advantages[:, None], run.config.clip
    unclipped, clipped = ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain
    assert (clipped < unclipped).any()
    each = (torch.minimum(unclipped, clipped) * policy.counted).sum(1) / divisor
    torch.testing.assert_close(second, -each.mean())

    run.step(2)
    assert run.rollout is not rollout


def test_a_run_killed_between_updates_ends_like_an_uninterrupted_one(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"updates_per_rollout": 2, "steps": 6, "save_every": 2, "kl_weight": 0.1}
    whole = optimisation(records, tmp_path / "whole", **changes)
    start = [parameter.detach().clone() for parameter in whole.trained]
    whole.run()
    killed = optimisation(records, tmp_path / "killed", **changes)
    with monkeypatch.context() as patch:
        step = killed.step

        def stop(number: int) -> training.StepResult:
            if number == 3:
                raise KeyboardInterrupt
            return step(number)

        patch.setattr(killed, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            killed.run()
    (tmp_path / "killed" / "altollm_grpo" / "output").rmdir()
    again = optimisation(records, tmp_path / "killed", **changes)
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
    run.step(0)
    assert len(scored) == 2  # once under the reference, once under the policy
    torch.testing.assert_close(run.rollout.reference_log_probs, run.rollout.old_log_probs, atol=0, rtol=0)
    move_far(run)
    run.step(1)
    gap = run.rollout.reference_log_probs - run.rollout.old_log_probs
    assert gap.abs().max() > 1e-3
    assert not run.rollout.reference_log_probs.requires_grad


def test_a_prompt_longer_than_the_model_reads_names_its_sample(records: Path, tmp_path: Path) -> None:
    run = optimisation(records, tmp_path)
    run.llm.model.config.text_config.max_position_embeddings = generation.MAX_TEXT_TOKENS + 12
    with pytest.raises(InputError, match=r"discs/\w+: the prompt has \d+ tokens"):
        run.step(0)


def test_without_kl_there_is_no_reference(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(training, "ReferenceWeights", lambda model: made.append(model))
    run = optimisation(records, tmp_path, kl_weight=0.0)
    run.step(0)
    assert not made
    assert run.rollout is not None
    assert run.rollout.reference_log_probs is None


def test_processes_share_the_prompts_of_a_step(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = optimisation(records, tmp_path / "whole", prompts_per_step=4).rollouts.make(5).samples
    shared = []
    for rank in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(processes, "process_count", lambda: 2)
            patch.setattr(processes, "process_rank", lambda rank=rank: rank)
            shared += optimisation(records, tmp_path / str(rank), prompts_per_step=4).rollouts._samples(5)
    assert [(one.name, one.expression, one.adaptive) for one in shared] == [
        (one.name, one.expression, one.adaptive) for one in whole
    ]
