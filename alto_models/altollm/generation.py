"""Batched answers with a key-value cache; questions on one image share its encoding and its cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from alto_models.altollm.grammar import MaskGrammar, State

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration
    from transformers.cache_utils import DynamicCache

MAX_TEXT_TOKENS = 96


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """temperature 0 is greedy. top_k None: all tokens. generator: where the randomness comes from."""

    temperature: float = 0.0
    top_k: int | None = None
    generator: torch.Generator | None = None

    def draw(self, logits_BV: Tensor) -> Tensor:  # noqa: N803
        """One token a row, (B,)."""
        if self.temperature == 0:
            return logits_BV.argmax(-1)
        logits_BV = logits_BV / self.temperature  # noqa: N806
        if self.top_k is not None and self.top_k < logits_BV.shape[1]:
            least = logits_BV.topk(self.top_k, dim=-1).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least, float("-inf"))  # noqa: N806
        return torch.multinomial(logits_BV.softmax(-1), 1, generator=self.generator)[:, 0]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """B questions on I images.

    image: (I, image tokens, width) embeddings. prefix: ids of the conversation's start with one image.
    image_of: index of each question's image. prompts: ids of each question after the prefix; one that ends
    in the mask start token is answered with a mask. max_lengths: codes of a mask, at most, per question.
    samples: answers to each question, next to each other in the result; its prompt is read once.
    """

    image: Tensor
    prefix: Sequence[int]
    image_of: Sequence[int]
    prompts: Sequence[Sequence[int]]
    max_lengths: Sequence[int]
    samples: int = 1


@torch.no_grad()
def generate(
    model: "InternVLForConditionalGeneration",
    grammar: MaskGrammar,
    questions: Questions,
    *,
    turn_end: int,
    sampling: Sampling,
    max_text_tokens: int = MAX_TEXT_TOKENS,
) -> list[list[int]]:
    """Token ids of each answer, the turn end included. Every mask begun is closed and has 1..max_length codes.

    An answer with more than `max_text_tokens` tokens outside masks is cut there, without a turn end.
    """
    prompts = _read_prompts(model, questions)
    last, cache, seen, position = prompts.last, prompts.cache, prompts.seen, prompts.position
    begins_mask = torch.tensor([prompt[-1] == grammar.vocabulary.start for prompt in questions.prompts])
    state = torch.where(begins_mask, int(State.FIRST_CODE), int(State.TEXT))
    state = state.repeat_interleave(questions.samples)
    max_lengths = torch.tensor(questions.max_lengths).repeat_interleave(questions.samples)
    codes, text_tokens = torch.zeros_like(state), torch.zeros_like(state)
    running = torch.ones_like(state, dtype=torch.bool)
    answers: list[list[int]] = [[] for _ in range(len(state))]
    while True:
        logits = grammar.restrict(model.lm_head(last), state)
        token = torch.where(running, sampling.draw(logits), turn_end)
        text_tokens += state == State.TEXT
        for row in running.nonzero()[:, 0].tolist():
            answers[row].append(int(token[row]))
        state, codes = grammar.follow(state, codes, token, max_lengths)
        running &= (token != turn_end) & ~((state == State.TEXT) & (text_tokens >= max_text_tokens))
        if not bool(running.any()):
            return answers
        seen = torch.cat([seen, torch.ones(len(seen), 1, dtype=torch.bool)], 1)
        last = _forward(model, token[:, None], position[:, None], seen[:, None], cache)[:, 0]
        position = position + 1


class _ReadPrompts(NamedTuple):
    """R = questions x samples rows. last: (R, width) hidden state of the last prompt token. seen: (R, slots),
    which slots of the cache hold a token. position: (R,) of the next token."""

    last: Tensor
    cache: "DynamicCache"
    seen: Tensor
    position: Tensor


def _read_prompts(model: "InternVLForConditionalGeneration", questions: Questions) -> _ReadPrompts:
    """Prompts are padded on the right, and what lies in padded slots is never looked at."""
    cache = _prefill_images(model, questions)
    before = len(questions.prefix)
    lengths = torch.tensor([len(prompt) for prompt in questions.prompts])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(p) for p in questions.prompts], batch_first=True)
    slots = torch.arange(before + ids.shape[1])
    seen = slots < before + lengths[:, None]
    earlier = slots <= slots[before:, None]
    positions = slots[before:].expand_as(ids)
    hidden = _forward(model, ids, positions, earlier & seen[:, None], cache)
    last = hidden[torch.arange(len(ids)), lengths - 1]
    if questions.samples > 1:
        cache.batch_repeat_interleave(questions.samples)
    last, seen, position = (
        values.repeat_interleave(questions.samples, 0) for values in (last, seen, before + lengths)
    )
    return _ReadPrompts(last=last, cache=cache, seen=seen, position=position)


def _prefill_images(model: "InternVLForConditionalGeneration", questions: Questions) -> "DynamicCache":
    """Keys and values of the prefix, computed once an image, one row a question."""
    from transformers.cache_utils import DynamicCache

    prefix = torch.tensor([list(questions.prefix)] * len(questions.image))
    inputs = model.get_input_embeddings()(prefix)
    place = prefix == model.config.image_token_id
    inputs = inputs.masked_scatter(place[..., None], questions.image)
    cache = DynamicCache(config=model.config.text_config)
    model.model.language_model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
    cache.batch_select_indices(torch.tensor(questions.image_of))
    return cache


def _forward(
    model: "InternVLForConditionalGeneration",
    ids: Tensor,
    positions: Tensor,
    visible: Tensor,
    cache: "DynamicCache",
) -> Tensor:
    """Hidden states (B, T, width) of T more tokens; visible: (B, T, slots) bool."""
    return model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(ids),
        attention_mask=visible[:, None],
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
