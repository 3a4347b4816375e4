"""Log-probabilities of sampled answers under the distribution they were sampled from."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alto_models.altollm.grammar import MaskGrammar
from alto_models.altollm.network import ImageTokens, hidden_states
from alto_models.altollm.packing import Branch, pack
from alto_models.training.precision import to_device
from alto_models.training.processes import max_over_processes

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration


# Numbers, in float32 and a few copies. A published vocabulary times the answers of a step would be many gigabytes.
LOGITS_AT_ONCE = 2**25


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

    Called by all processes alike. image, prefixes: one a group. Probabilities are those of constrained sampling at
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
    batch = batch.to(model.device)
    hidden = hidden_states(model, image, batch).flatten(0, 1).index_select(0, batch.learned - 1)
    labels = batch.labels.flatten().index_select(0, batch.learned)

    def score(hidden: Tensor, labels: Tensor, states: Tensor) -> Tensor:
        logits = grammar.restrict(model.lm_head(hidden).float() / temperature, states)
        return logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]

    # Shared-out weights are put together at each call of the head, so all processes have to make equally many.
    parts = max_over_processes(math.ceil(len(labels) * len(grammar.allowed[0]) / LOGITS_AT_ONCE))
    chosen = _in_parts(score, parts, hidden, labels, states)
    log_probs = chosen.new_zeros(counted.numel()).index_copy(0, places, chosen).view_as(counted)
    return AnswerLogProbs(log_probs=log_probs, counted=counted)


def _in_parts(score: Callable[..., Tensor], count: int, *inputs: Tensor) -> Tensor:
    """`score` of one part of the inputs' rows after the other. Of several, nothing in between is kept for the way
    back: it is computed again."""
    if count == 1:
        return score(*inputs)
    parts = zip(*(each.tensor_split(count) for each in inputs), strict=True)
    return torch.cat([checkpoint(score, *part, use_reentrant=False) for part in parts])
