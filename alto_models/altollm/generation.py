"""Batched answers with a key-value cache; questions on one image share its encoding and its cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alto_models.altollm.grammar import MaskGrammar, State
from alto_models.altollm.network import ImageTokens, input_embeddings
from alto_models.altollm.packing import pack
from alto_models.training.precision import to_device

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration
    from transformers.cache_utils import Cache

MAX_TEXT_TOKENS = 96


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """temperature 0 is greedy. top_k None: all tokens.

    randomness: a generator a question, which gives one number for each token of each of its samples. So what is
    drawn for a question does not depend on those it is asked with.
    """

    temperature: float = 0.0
    top_k: int | None = None
    randomness: Sequence[np.random.Generator] = ()

    def draw(self, logits_BV: Tensor) -> Tensor:  # noqa: N803
        """One token a row, (B,): samples of the first question, of the second …"""
        if self.temperature == 0:
            return logits_BV.argmax(-1)
        logits_BV = logits_BV / self.temperature  # noqa: N806
        if self.top_k is not None and self.top_k < logits_BV.shape[1]:
            least = logits_BV.topk(self.top_k, dim=-1).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least, float("-inf"))  # noqa: N806
        samples = len(logits_BV) // len(self.randomness)
        # With 24 bits each, a float64 product with the total stays below it: no token of probability 0 is drawn.
        numbers = np.concatenate([each.random(samples, dtype=np.float32) for each in self.randomness])
        mass = logits_BV.softmax(-1, dtype=torch.float64).cumsum(-1)
        drawn = to_device(torch.from_numpy(numbers), mass.device)[:, None] * mass[:, -1:]
        return torch.searchsorted(mass, drawn, right=True)[:, 0]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """B questions on I images.

    image, prefixes: one an image; its embeddings, and the ids of the conversation's start with it.
    image_of: index of each question's image. prompts: ids of each question after the prefix; one that ends
    in the mask start token is answered with a mask. max_lengths: codes of a mask, at most, per question.
    samples: answers to each question, next to each other in the result; its prompt is read once.
    """

    image: ImageTokens
    prefixes: Sequence[Sequence[int]]
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
    state, max_lengths = (
        to_device(values.repeat_interleave(questions.samples), model.device)
        for values in (state, torch.tensor(questions.max_lengths))
    )
    codes, text_tokens = torch.zeros_like(state), torch.zeros_like(state)
    running = torch.ones_like(state, dtype=torch.bool)
    tokens: list[Tensor] = []
    said: list[Tensor] = []
    while not _all_ended(running, len(tokens)):
        if tokens:
            seen = torch.cat([seen, seen.new_ones(len(seen), 1)], 1)
            last = _forward(model, tokens[-1][:, None], position[:, None], seen[:, None], cache)[:, 0]
            position = position + 1
        logits = grammar.restrict(model.lm_head(last).float(), state)
        token = torch.where(running, sampling.draw(logits), turn_end)
        tokens.append(token)
        said.append(running)
        text_tokens += state == State.TEXT
        state, codes = grammar.follow(state, codes, token, max_lengths)
        cut = (state == State.TEXT) & (text_tokens >= max_text_tokens)
        running = running & (token != turn_end) & ~cut
    lengths = torch.stack(said, 1).sum(1).tolist()
    answers = torch.stack(tokens, 1).tolist()
    return [ids[:length] for ids, length in zip(answers, lengths, strict=True)]


def _all_ended(running: Tensor, steps: int) -> bool:
    return steps > 0 and steps % steps_between_looks(running.device) == 0 and not bool(running.any())


def steps_between_looks(device: torch.device) -> int:
    """At whether all answers have ended: to look, the host waits for the device."""
    return 1 if device.type == "cpu" else 8


class _ReadPrompts(NamedTuple):
    """R = questions x samples rows. last: (R, width) hidden state of the last prompt token. seen: (R, slots),
    which slots of the cache hold a token. position: (R,) of the next token."""

    last: Tensor
    cache: "Cache"
    seen: Tensor
    position: Tensor


def _read_prompts(model: "InternVLForConditionalGeneration", questions: Questions) -> _ReadPrompts:
    """Prefixes and prompts are padded on the right, and what lies in padded slots is never looked at."""
    cache = _prefill_images(model, questions)
    images = torch.tensor([len(prefix) for prefix in questions.prefixes])[list(questions.image_of)]
    prompts = torch.tensor([len(prompt) for prompt in questions.prompts])
    ids = pad_sequence([torch.tensor(prompt) for prompt in questions.prompts], batch_first=True)
    begin = max(map(len, questions.prefixes))
    slots = torch.arange(begin + ids.shape[1])
    seen = (slots < images[:, None]) | ((slots >= begin) & (slots < begin + prompts[:, None]))
    earlier = slots <= slots[begin:, None]
    positions = images[:, None] + torch.arange(ids.shape[1])
    ends = torch.arange(len(ids)) * ids.shape[1] + prompts - 1
    ids, positions, visible, seen, ends, position = (
        to_device(each, model.device)
        for each in (ids, positions, earlier & seen[:, None], seen, ends, images + prompts)
    )
    last = _forward(model, ids, positions, visible, cache).flatten(0, 1).index_select(0, ends)
    if questions.samples > 1:
        cache.batch_repeat_interleave(questions.samples)
    last, seen, position = (
        values.repeat_interleave(questions.samples, 0) for values in (last, seen, position)
    )
    return _ReadPrompts(last=last, cache=cache, seen=seen, position=position)


def _prefill_images(model: "InternVLForConditionalGeneration", questions: Questions) -> "Cache":
    """Keys and values of the prefix, computed once an image, one row a question."""
    from transformers.cache_utils import Cache

    from alto_models.altollm.cache import RoomyLayer

    image_token = model.config.image_token_id
    prefixes = questions.prefixes
    batch = pack(prefixes, [()] * len(prefixes), padding_id=0, image_token=image_token).to(model.device)
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    model.model.language_model(
        inputs_embeds=input_embeddings(model, questions.image, batch),
        position_ids=batch.positions,
        attention_mask=batch.attention_mask(),
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_select_indices(to_device(torch.tensor(questions.image_of), model.device))
    return cache


def _forward(
    model: "InternVLForConditionalGeneration",
    ids: Tensor,
    positions: Tensor,
    visible: Tensor,
    cache: "Cache",
) -> Tensor:
    """Hidden states (B, T, width) of T more tokens; visible: (B, T, slots) bool."""
    return model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(ids),
        attention_mask=visible[:, None],
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
