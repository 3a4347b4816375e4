"""Advantages, rewards and the loss of GRPO against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_models.altollm.answering import Answer
from alto_models.altollm.generation import Questions, Sampling
from alto_models.altollm.grpo import advantages, grpo_loss
from alto_models.altollm.rewards import Reward, RewardWeights, reward
from alto_models.altollm.scoring import Group, answer_log_probs
from alto_models.altollm.vocabulary import PADDING, token_id
from alto_models.metrics import Overlap
from tests.alto_models.altollm.tiny import picture, untrained

WEIGHTS = RewardWeights(well_formed=0.1, length=0.01)


def test_advantages_follow_the_stated_formula() -> None:
    rewards = [1.0, 0.5, 0.5, 0.0]
    deviation = math.sqrt(sum((r - 0.5) ** 2 for r in rewards) / 4)
    expected = [(r - 0.5) / (deviation + 0.1) for r in rewards]
    torch.testing.assert_close(
        advantages(torch.tensor([rewards, [3.0] * 4]), "grpo")[0], torch.tensor(expected)
    )
    torch.testing.assert_close(advantages(torch.tensor([rewards, [3.0] * 4]), "grpo")[1], torch.zeros(4))
    torch.testing.assert_close(
        advantages(torch.tensor([rewards]), "dr_grpo")[0], torch.tensor([0.5, 0.0, 0.0, -0.5])
    )


def reference_loss(policy, old, reference, advantage, lengths, clip, kl_weight, variant, max_tokens):
    """Token by token, in plain Python."""
    total = 0.0
    for n, length in enumerate(lengths):
        row = 0.0
        for t in range(length):
            ratio = (policy[n, t] - old[n, t]).exp()
            clipped = min(max(ratio, torch.tensor(1 - clip)), torch.tensor(1 + clip))
            gap = reference[n, t] - policy[n, t]
            row = row - min(ratio * advantage[n], clipped * advantage[n]) + kl_weight * (gap.exp() - gap - 1)
        total = total + row / (length if variant == "grpo" else max_tokens)
    return total / len(lengths)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["grpo", "dr_grpo"]), st.sampled_from([0.0, 0.3]))
def test_loss_and_gradient_equal_a_plain_reference(seed: int, variant, kl_weight: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    policy, old, reference = (-torch.rand(4, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    advantage = torch.randn(4, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 6, (4,), generator=generator).tolist()
    counted = torch.arange(5) < torch.tensor(lengths)[:, None]
    ours, plain = policy.clone().requires_grad_(), policy.clone().requires_grad_()
    loss = grpo_loss(
        ours,
        advantage,
        counted,
        old_log_probs_NT=old,
        reference_log_probs_NT=reference,
        clip=0.2,
        kl_weight=kl_weight,
        variant=variant,
        max_tokens=7,
    )
    expected = reference_loss(plain, old, reference, advantage, lengths, 0.2, kl_weight, variant, 7)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, plain.grad)
    assert (ours.grad[~counted] == 0).all()


def test_what_follows_the_end_of_an_answer_changes_nothing() -> None:
    policy = torch.tensor([[-1.0, -2.0, -3.0]])
    counted = torch.tensor([[True, True, False]])
    changed = policy.clone()
    changed[0, 2] = float("-inf")
    arguments = (torch.tensor([0.7]), counted)
    assert grpo_loss(policy, *arguments) == grpo_loss(changed, *arguments)


def answer(codes: int, *, no_target: bool = False, malformed: bool = False) -> Answer:
    return Answer(text="", masks=((1,) * codes,) if codes else (), no_target=no_target, malformed=malformed)


def overlap(intersection: int, union: int, predicted: int, target: int) -> Overlap:
    return Overlap(intersection=intersection, union=union, predicted_area=predicted, target_area=target)


@pytest.mark.parametrize(
    ("said", "counts", "expected"),
    [
        (answer(6), overlap(30, 60, 40, 50), Reward(0.5, 0.1, 0.1)),
        (answer(16), overlap(30, 60, 40, 50), Reward(0.5, 0.1, 0.0)),
        (answer(0, no_target=True), overlap(0, 0, 0, 0), Reward(1.0, 0.1, 0.16)),
        (answer(0, no_target=True), overlap(0, 50, 0, 50), Reward(0.0, 0.1, 0.0)),
        (answer(6), overlap(0, 40, 40, 0), Reward(0.0, 0.1, 0.0)),
        (answer(0, malformed=True), overlap(0, 50, 0, 50), Reward(0.0, 0.0, 0.0)),
        (answer(0, malformed=True), overlap(0, 0, 0, 0), Reward(0.0, 0.0, 0.0)),
    ],
)
def test_rewards(said: Answer, counts: Overlap, expected: Reward) -> None:
    assert reward(said, counts, 16, WEIGHTS, adaptive=True) == pytest.approx(expected)


@pytest.mark.parametrize(("codes", "well_formed"), [(16, 0.1), (15, 0.0), (1, 0.0)])
def test_a_prompt_for_full_length_is_answered_with_all_codes(codes: int, well_formed: float) -> None:
    given = reward(answer(codes), overlap(30, 60, 40, 50), 16, WEIGHTS, adaptive=False)
    assert given == pytest.approx(Reward(0.5, well_formed, 0.0))


def test_a_refusal_is_well_formed_whatever_length_was_asked_for() -> None:
    given = reward(answer(0, no_target=True), overlap(0, 0, 0, 0), 16, WEIGHTS, adaptive=False)
    assert given == pytest.approx(Reward(1.0, 0.1, 0.0))


@torch.no_grad()
def test_a_group_is_scored_as_each_answer_by_itself() -> None:
    llm = untrained()
    image = llm.encode_images([picture(1), picture(2)])
    prompts = [
        llm.template.question_ids(llm.tokenizer, text) for text in ("Segment <ref>star</ref>.", "ring")
    ]
    sampled = llm.generate(
        Questions(
            image=image,
            prefixes=llm.prefixes(image),
            image_of=[0, 1],
            prompts=prompts,
            max_lengths=[4, 4],
            samples=3,
        ),
        Sampling(temperature=0.8, randomness=[np.random.default_rng([1, place]) for place in range(2)]),
    )
    groups = [
        Group(prompt=prompt, answers=sampled[3 * index : 3 * index + 3])
        for index, prompt in enumerate(prompts)
    ]
    options = {"max_length": 4, "temperature": 0.8, "padding_id": token_id(llm.tokenizer, PADDING)}
    together = answer_log_probs(llm.model, llm.grammar, image, llm.prefixes(image), groups, **options)
    for index, ids in enumerate(sampled):
        alone = answer_log_probs(
            llm.model,
            llm.grammar,
            image[index // 3 : index // 3 + 1],
            llm.prefixes(image)[:1],
            [Group(prompt=prompts[index // 3], answers=[ids])],
            **options,
        )
        torch.testing.assert_close(
            together.log_probs[index, : len(ids)], alone.log_probs[0], atol=1e-4, rtol=0
        )
        assert together.counted[index].sum() == len(ids)
        forced = together.log_probs[index, : len(ids)] == 0
        assert not forced.all()
        assert torch.isfinite(together.log_probs[index]).all()
