"""Prompts and answers, and how a question and its answer become token ids."""

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from alto_models.altollm.vocabulary import (
    ASSISTANT,
    IMAGE_CONTEXT,
    IMAGE_END,
    IMAGE_START,
    MASK_END,
    MASK_START,
    REFERENCE_END,
    REFERENCE_START,
    TURN_END,
    USER,
)

ADAPTIVE_SUFFIX = "by adaptive length"
MASK_ANSWER = "The mask appears at {boxes}{mask}."
NO_TARGET_ANSWER = "There is no such object."


def segment_prompt(expression: str, *, adaptive: bool) -> str:
    """`Segment <ref>…</ref>.`, for a mask of full length, or `… by adaptive length.`"""
    suffix = f" {ADAPTIVE_SUFFIX}" if adaptive else ""
    return f"Segment {REFERENCE_START}{expression}{REFERENCE_END}{suffix}."


def is_no_target(text: str) -> bool:
    """Whether an answer says that the object is not there."""
    return re.sub(r"[^a-z ]", "", text.lower()).split() == NO_TARGET_ANSWER.lower().strip(".").split()


@dataclass(frozen=True, kw_only=True)
class Template:
    """Text around the turns of a conversation. All of it but the answer and `turn_end` is prompt."""

    before_question: str = USER
    before_answer: str = ASSISTANT
    turn_end: str = TURN_END

    def image_ids(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int) -> list[int]:
        """The conversation's start: one image."""
        return _ids(tokenizer, IMAGE_START + IMAGE_CONTEXT * image_tokens + IMAGE_END)

    def question_ids(self, tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
        return _ids(tokenizer, self.before_question + question + self.before_answer)

    def answer_ids(self, tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
        return _ids(tokenizer, answer + self.turn_end)


def mask_answer_ids(
    tokenizer: PreTrainedTokenizerBase, template: Template, mask_ids: list[int], boxes: str = ""
) -> list[int]:
    """An answer with the mask already in token ids, start and end included, and perhaps boxes before it."""
    before, after = MASK_ANSWER.format(boxes=boxes, mask="{mask}").split("{mask}")
    return [*_ids(tokenizer, before), *mask_ids, *_ids(tokenizer, after + template.turn_end)]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


__all__ = [
    "MASK_END",
    "MASK_START",
    "NO_TARGET_ANSWER",
    "Template",
    "is_no_target",
    "mask_answer_ids",
    "segment_prompt",
]
