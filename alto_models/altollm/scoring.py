"""Log-probabilities of sampled answers under the distribution they were sampled from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alto_models.altollm.grammar import MaskGrammar
from alto_models.altollm.network import ImageTokens
from alto_models.altollm.packing import Branch, pack
from alto_models.altollm.supervised import score_answers
from alto_models.training.precision import to_device

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration


@dataclass(frozen=True, kw_only=True)
class Group:
    """Answers (token ids) to one prompt (ids after the prefix)."""

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class AnswerLogProbs:
    """N answers of all groups, T tokens. log_probs: (N, T), 0 where not counted. counted: (N, T) bool."""

    log_probs: Tensor
    counted: Tensor


def answer_log_probs(
    model: "InternVLForConditionalGeneration",
    grammar: MaskGrammar,
    image: ImageTokens,
    prefixes: Sequence[Sequence[int]],
    groups: Sequence[Group],
    *,
    max_length: int,
    temperature: float,
    padding_id: int,
) -> AnswerLogProbs:
    """Image, prompt and answers of a group are one packed sequence: image and prompt are read once a group.

    image, prefixes: one a group. Probabilities are those of constrained sampling at
    `temperature` (before top-k), so a token that was the only one allowed has log-probability 0.
    """
    batch = pack(
        [[*prefix, *group.prompt[:-1]] for prefix, group in zip(prefixes, groups, strict=True)],
        [
            [Branch(ids=[group.prompt[-1], *answer], prompt_length=1) for answer in group.answers]
            for group in groups
        ],
        padding_id=padding_id,
        image_token=model.config.image_token_id,
    )
    answers = [answer for group in groups for answer in group.answers]
    longest = max(map(len, answers))
    padded = torch.tensor([[*answer, *[padding_id] * (longest - len(answer))] for answer in answers])
    counted = torch.tensor([[place < len(answer) for place in range(longest)] for answer in answers])
    places = torch.tensor(
        [row * longest + place for row, answer in enumerate(answers) for place in range(len(answer))]
    )
    states = grammar.states(padded, torch.full((len(answers),), max_length)).flatten()[places]
    states, places, counted = (to_device(each, model.device) for each in (states, places, counted))
    scores = score_answers(model, image, batch)
    logits = grammar.restrict(scores.logits.float() / temperature, states)
    chosen = logits.log_softmax(-1).gather(1, scores.labels[:, None])[:, 0]
    log_probs = chosen.new_zeros(counted.numel()).index_copy(0, places, chosen).view_as(counted)
    return AnswerLogProbs(log_probs=log_probs, counted=counted)
