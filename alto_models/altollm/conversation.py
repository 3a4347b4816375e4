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
    TURN_START,
    USER,
    token_id,
)
from data_contracts.errors import InputError

ADAPTIVE_SUFFIX = "by adaptive length"
MASK_ANSWER = "The mask appears at {boxes}{mask}."
NO_TARGET_ANSWER = "There is no such object."

# As the published training data asks; the first is the one that evaluation uses.
REQUESTS = (
    "Segment {target}.",
    "Create a mask for {target}.",
    "Generate a mask for {target}.",
    "Do segmentation for {target}.",
    "Please give the mask for {target}.",
    "What is the mask for {target}?",
    "Can you segment {target}?",
)


def segment_prompt(expression: str, *, adaptive: bool, request: str = REQUESTS[0]) -> str:
    """`Segment <ref>…</ref>.`, for a mask of full length, or `… by adaptive length.`

    request: how it is put, one of `REQUESTS`.
    """
    suffix = f" {ADAPTIVE_SUFFIX}" if adaptive else ""
    return request.format(target=f"{REFERENCE_START}{expression}{REFERENCE_END}{suffix}")


class Signals:
    """The tokens that a model reads as signals.

    Text from outside must hold none: it could end a turn, or pass for a mask or an image.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        names = sorted(tokenizer.added_tokens_encoder, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names))) if names else None

    def first_in(self, text: str) -> str | None:
        """The first signal that the text holds, if any."""
        found = self._pattern.search(text) if self._pattern else None
        return found[0] if found else None


def is_no_target(text: str) -> bool:
    """Whether an answer says that the object is not there."""
    return re.sub(r"[^a-z ]", "", text.lower()).split() == NO_TARGET_ANSWER.lower().strip(".").split()


@dataclass(frozen=True, kw_only=True)
class Template:
    """Text around the turns of a conversation. All of it but the answer and `turn_end` is prompt.

    By default that of the project's own small models.
    """

    before_image: str = ""
    before_question: str = USER
    before_next_question: str = USER
    before_answer: str = ASSISTANT
    turn_end: str = TURN_END

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Template":
        """The format that the tokenizer's checkpoint was trained on, known by its tokens.

        Raises InputError naming the token that is missing.
        """
        known = tokenizer.get_vocab()
        if TURN_START in known:
            token_id(tokenizer, TURN_END)
            return INTERNVL_TEMPLATE
        if USER not in known:
            raise InputError(
                f"the tokenizer has neither {TURN_START!r} nor {USER!r}: conversations in this checkpoint's format "
                "are not known"
            )
        for token in (ASSISTANT, TURN_END):
            token_id(tokenizer, token)
        return cls()

    def image_ids(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int) -> list[int]:
        """The conversation's start: one image, after the begin of text where the tokenizer sets one."""
        begin = [token for token in tokenizer("")["input_ids"] if token == tokenizer.bos_token_id]
        image = IMAGE_START + IMAGE_CONTEXT * image_tokens + IMAGE_END
        return begin + _ids(tokenizer, self.before_image + image)

    def question_ids(
        self, tokenizer: PreTrainedTokenizerBase, question: str, *, first: bool = True
    ) -> list[int]:
        """first: it follows the image, not an answer."""
        before = self.before_question if first else self.before_next_question
        return _ids(tokenizer, before + question + self.before_answer)

    def answer_ids(self, tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
        return _ids(tokenizer, answer + self.turn_end)


# InternVL's ChatML without a system message: source github.com/OpenGVLab/InternVL, `internvl2_5`.
INTERNVL_TEMPLATE = Template(
    before_image=f"{TURN_START}user\n",
    before_question="\n",
    before_next_question=f"\n{TURN_START}user\n",
    before_answer=f"{TURN_END}\n{TURN_START}assistant\n",
)


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
    "REQUESTS",
    "Signals",
    "Template",
    "is_no_target",
    "mask_answer_ids",
    "segment_prompt",
]
