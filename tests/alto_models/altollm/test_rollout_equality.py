"""What GRPO shares (an image's encoding, a prompt's cache, a packed prefix) changes no probability.

The plain computation: transformers' own forward pass on the pixels and the whole conversation of one answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from alto_models.altollm import scoring
from alto_models.altollm.conversation import segment_prompt
from alto_models.altollm.generation import Questions, Sampling
from alto_models.altollm.processor import normalise, square_thumbnail
from alto_models.altollm.scoring import AnswerLogProbs, Group, answer_log_probs
from alto_models.altollm.vocabulary import padding_id
from tests.alto_models.altollm.tiny import picture, untrained

LLM = untrained()
PICTURES = [picture(1), picture(2, 64, 30), picture(3, 20, 20)]
IMAGES = LLM.encode_images(PICTURES)
EXPRESSIONS = ["the red star left of the ring", "blue", "star"]
PROMPTS = [
    LLM.template.question_ids(LLM.tokenizer, segment_prompt(text, adaptive=True)) for text in EXPRESSIONS
]
GROUP, LONGEST, TEMPERATURE = 4, 5, 0.8


@dataclass(frozen=True, kw_only=True)
class Recorded(Sampling):
    """Keeps the restricted logits of every draw."""

    logits: list[Tensor] = field(default_factory=list)

    def draw(self, logits_BV: Tensor) -> Tensor:  # noqa: N803
        self.logits.append(logits_BV)
        return super().draw(logits_BV)


def sampled(begin_masks: bool) -> tuple[list[list[int]], list[Tensor]]:
    """Answers to every prompt, and log-probabilities of the vocabulary at each of their tokens."""
    sampling = Recorded(
        temperature=TEMPERATURE, randomness=[np.random.default_rng([4, place]) for place in range(3)]
    )
    start = [LLM.vocabulary.start] if begin_masks else []
    questions = Questions(
        image=IMAGES,
        prefixes=LLM.prefixes(IMAGES),
        image_of=range(3),
        prompts=[[*prompt, *start] for prompt in PROMPTS],
        max_lengths=[LONGEST] * 3,
        samples=GROUP,
    )
    answers = LLM.generate(questions, sampling)
    steps = torch.stack(sampling.logits, 1)
    return [[*start, *answer] for answer in answers], [
        (steps[row, : len(answer)] / TEMPERATURE).log_softmax(-1) for row, answer in enumerate(answers)
    ]


def plain_log_probs(picture_index: int, answer: Sequence[int]) -> Tensor:
    """(answer tokens, vocabulary)"""
    pixels = normalise(square_thumbnail(PICTURES[picture_index], LLM.image_size)[None])
    ids = torch.tensor([[*LLM.prefix(IMAGES.shape[1]), *PROMPTS[picture_index], *answer]])
    logits = LLM.model(input_ids=ids, pixel_values=pixels).logits[0, -len(answer) - 1 : -1]
    states = LLM.grammar.states(torch.tensor([list(answer)]), torch.tensor([LONGEST]))[0]
    return LLM.grammar.restrict(logits / TEMPERATURE, states).log_softmax(-1)


def score(order: Sequence[int], answers: Sequence[Sequence[int]]) -> AnswerLogProbs:
    groups = [
        Group(prompt=PROMPTS[place], answers=answers[place * GROUP : (place + 1) * GROUP]) for place in order
    ]
    return answer_log_probs(
        LLM.model,
        LLM.grammar,
        IMAGES[list(order)],
        LLM.prefixes(IMAGES[list(order)]),
        groups,
        max_length=LONGEST,
        temperature=TEMPERATURE,
        padding_id=padding_id(LLM.tokenizer),
    )


@torch.no_grad()
@pytest.mark.parametrize("begin_masks", [False, True])
def test_sampling_and_scoring_equal_the_plain_computation(begin_masks: bool) -> None:
    answers, drawn_from = sampled(begin_masks)
    scores = score(range(3), answers)
    assert len({len(answer) for answer in answers}) > 1
    for row, answer in enumerate(answers):
        plain = plain_log_probs(row // GROUP, answer)
        torch.testing.assert_close(drawn_from[row], plain[-len(drawn_from[row]) :], atol=1e-4, rtol=0)
        chosen = plain.gather(1, torch.tensor(answer)[:, None])[:, 0]
        torch.testing.assert_close(scores.log_probs[row, : len(answer)], chosen, atol=1e-4, rtol=0)
        assert scores.counted[row].sum() == len(answer)
        assert not scores.log_probs[row, len(answer) :].any()


@torch.no_grad()
def test_padding_and_batch_order_change_no_score() -> None:
    answers, _ = sampled(begin_masks=True)
    together = score(range(3), answers).log_probs
    turned = score([2, 0, 1], answers).log_probs.view(3, GROUP, -1)[[1, 2, 0]].flatten(0, 1)
    torch.testing.assert_close(turned, together, atol=1e-5, rtol=0)
    for place in range(3):
        alone = score([place], answers).log_probs
        mine = together[place * GROUP : (place + 1) * GROUP, : alone.shape[1]]
        torch.testing.assert_close(mine, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("logits_at_once", [scoring.LOGITS_AT_ONCE, 500])
def test_gradients_of_a_packed_group_equal_those_of_answers_scored_alone(
    monkeypatch: pytest.MonkeyPatch, logits_at_once: int
) -> None:
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", logits_at_once)
    answers, _ = sampled(begin_masks=True)
    weights = torch.linspace(-1, 1, len(answers))
    parameter = LLM.model.model.language_model.layers[0].mlp.up_proj.weight
    scores = score(range(3), answers)
    (packed,) = torch.autograd.grad((scores.log_probs.sum(1) * weights).sum(), parameter)
    plain = torch.zeros_like(parameter)
    for row, answer in enumerate(answers):
        chosen = plain_log_probs(row // GROUP, answer).gather(1, torch.tensor(answer)[:, None])
        plain += torch.autograd.grad(chosen.sum() * weights[row], parameter)[0]
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=1e-4)
