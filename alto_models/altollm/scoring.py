"""Log-probabilities of sampled answers under the distribution they were sampled from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alto_models.altollm.grammar import MaskGrammar
from alto_models.altollm.packing import Branch, pack
from alto_models.altollm.supervised import score_answers

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
    image: Tensor,
    prefix: Sequence[int],
    groups: Sequence[Group],
    *,
    max_length: int,
    temperature: float,
    padding_id: int,
) -> AnswerLogProbs:
    """Image, prompt and answers of a group are one packed sequence: image and prompt are read once a group.

    image: (groups, image tokens, width), one a group. Probabilities are those of constrained sampling at
    `temperature` (before top-k), so a token that was the only one allowed has log-probability 0.
    """
    batch = pack(
        [[*prefix, *group.prompt[:-1]] for group in groups],
        [
            [Branch(ids=[group.prompt[-1], *answer], prompt_length=1) for answer in group.answers]
            for group in groups
        ],
        padding_id,
    )
    answers = [torch.tensor(answer) for group in groups for answer in group.answers]
    lengths = torch.tensor([len(answer) for answer in answers])
    padded = pad_sequence(answers, batch_first=True, padding_value=padding_id)
    counted = torch.arange(padded.shape[1]) < lengths[:, None]
    states = grammar.states(padded, torch.full_like(lengths, max_length))
    scores = score_answers(model, image, batch)
    logits = grammar.restrict(scores.logits / temperature, states[counted])
    chosen = logits.log_softmax(-1).gather(1, scores.labels[:, None])[:, 0]
    log_probs = torch.zeros(counted.shape).masked_scatter(counted, chosen)
    return AnswerLogProbs(log_probs=log_probs, counted=counted)
