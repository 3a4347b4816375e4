"""What may follow what in an answer: between mask start and end only codes, 1 to `max_length` of them.

Outside masks the text is free, except for tokens that mean nothing there (codes, mask end, image tokens,
padding).
"""

from enum import IntEnum

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alto_models.altollm.vocabulary import IMAGE_CONTEXT, MaskVocabulary, padding_id, token_id


class State(IntEnum):
    """What the next token may be."""

    TEXT = 0
    FIRST_CODE = 1
    CODE_OR_END = 2
    END = 3


class MaskGrammar:
    """Constrains answers. allowed: (4, vocabulary) bool, one row a `State`. Works where its arguments are."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary: MaskVocabulary, vocabulary_size: int
    ) -> None:
        self.vocabulary = vocabulary
        codes = torch.zeros(vocabulary_size, dtype=torch.bool)
        codes[list(vocabulary.codes)] = True
        end = torch.zeros(vocabulary_size, dtype=torch.bool)
        end[vocabulary.end] = True
        text = ~(codes | end)
        text[[token_id(tokenizer, IMAGE_CONTEXT), padding_id(tokenizer)]] = False
        text[len(tokenizer) :] = False
        self.allowed = torch.stack([text, codes, codes | end, end])
        self._allowed_on = {self.allowed.device: self.allowed}

    def follow(
        self, state: Tensor, length: Tensor, token: Tensor, max_length: Tensor
    ) -> tuple[Tensor, Tensor]:
        """State and number of codes of the open mask after one more token; all arguments (B,) int64."""
        is_code = self._on(token.device)[State.FIRST_CODE, token]
        length = torch.where(is_code, length + 1, torch.where(state == State.TEXT, 0, length))
        within = torch.where(length >= max_length, int(State.END), int(State.CODE_OR_END))
        state = torch.where(is_code, within, state)
        state = torch.where(token == self.vocabulary.start, int(State.FIRST_CODE), state)
        state = torch.where(token == self.vocabulary.end, int(State.TEXT), state)
        return state, torch.where(token == self.vocabulary.start, 0, length)

    def states(self, answer_BT: Tensor, max_length_B: Tensor) -> Tensor:  # noqa: N803
        """State before each token of answers that begin as text, (B, T) int64."""
        state = torch.zeros_like(max_length_B)
        length = torch.zeros_like(state)
        states = []
        for column in answer_BT.T:
            states.append(state)
            state, length = self.follow(state, length, column, max_length_B)
        return torch.stack(states, 1)

    def restrict(self, logits: Tensor, state: Tensor) -> Tensor:
        """logits (…, vocabulary) with -inf where `state` (…) forbids the token."""
        return logits.masked_fill(~self._on(logits.device)[state], float("-inf"))

    def _on(self, device: torch.device) -> Tensor:
        if device not in self._allowed_on:
            self._allowed_on[device] = self.allowed.to(device)
        return self._allowed_on[device]
