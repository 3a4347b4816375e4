"""ALToLLM in one verb: `segment` what expressions describe in an image of any size.

    segmenter = Segmenter.from_folders(Path("models/small/altollm_grpo"), Path("models/small/tokenizer_stage1_5"))
    (found,) = segmenter.segment(image, ["the red star left of the ring"])
    found.mask, found.score

Letters: H height, W width of the image in pixels. Runs on the GPU where there is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from alto_models import masks as mask_arithmetic
from alto_models.altollm.answering import AltoLLM, Answer
from alto_models.altollm.conversation import Signals, segment_prompt
from alto_models.altollm.generation import Sampling
from alto_models.altollm.network import ImageTokens
from alto_models.altollm.segmenting import decode_answers
from alto_models.data.files import BoolMask
from alto_models.data.shards import Picture
from alto_models.tokenizer.any_tokenizer import load_any_tokenizer
from alto_models.tokenizer.api import check_wanted, picture_size
from alto_models.tokenizer.interface import Tokenizer
from alto_models.tokenizer.whole_image import embed_whole_image
from alto_models.training.precision import own_device
from data_contracts.errors import InputError

Probability = Annotated[float, Field(ge=0, le=1)]


class SegmentLimits(BaseModel):
    """What one call may ask for, so that no request takes all memory or all time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_pixels: int = Field(default=50_000_000, gt=0, description="height times width")
    expressions: int = Field(default=64, gt=0)
    text_length: int = Field(default=500, gt=0, description="characters of an expression")

    def check_image(self, image: Picture) -> tuple[int, int]:
        """(H, W). Raises InputError unless the image is (H, W, 3) uint8 and small enough."""
        height, width = picture_size(image)
        if height * width > self.image_pixels:
            raise InputError(
                f"the image has {width} x {height} pixels, more than {self.image_pixels:,}; scale it down first"
            )
        return height, width

    def check_expressions(self, expressions: Sequence[str]) -> None:
        """Raises InputError for none, too many, or one that is empty, too long or no text."""
        if not 1 <= len(expressions) <= self.expressions:
            raise InputError(f"an image takes 1 to {self.expressions} expressions, got {len(expressions)}")
        for number, text in enumerate(expressions, start=1):
            if not text.strip():
                raise InputError(f"expression {number} is empty: say what to segment")
            if len(text) > self.text_length:
                raise InputError(
                    f"expression {number} has {len(text)} characters, more than {self.text_length}: shorten it"
                )
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise InputError(f"expression {number} is not valid Unicode text")


DEFAULT_LIMITS = SegmentLimits()


class CocoRle(BaseModel):
    """A mask in compressed COCO form, as pycocotools reads it. size: (H, W)."""

    model_config = ConfigDict(frozen=True)

    size: tuple[int, int]
    counts: str


class Segmentation(BaseModel):
    """What was answered for one expression; the mask has the image's size.

    codes: the mask was decoded from, length: how many. score: mean probability of the codes, or of all tokens
    of an answer without a mask, among the tokens that the grammar allowed.
    no_target: the answer says that there is no such object. malformed: it is neither that nor a mask, or did
    not end. Either has no codes and an empty mask.
    """

    model_config = ConfigDict(frozen=True)

    expression: str
    codes: tuple[int, ...]
    length: int
    score: Probability
    rle: CocoRle
    answer: str
    no_target: bool
    malformed: bool

    @property
    def mask(self) -> BoolMask:
        """(H, W) bool."""
        height, width = self.rle.size
        return mask_arithmetic.decode(mask_arithmetic.Rle(height, width, self.rle.counts)).astype(bool)


class Segmenter:
    """ALToLLM with the mask tokenizer that it was trained with. Raises InputError for whatever does not fit.

    batch_size: expressions answered together.
    """

    def __init__(
        self,
        llm: AltoLLM,
        tokenizer: Tokenizer,
        *,
        limits: SegmentLimits = DEFAULT_LIMITS,
        batch_size: int = 16,
    ) -> None:
        known, entries = llm.vocabulary.size, tokenizer.config.codebook_size
        if known != entries:
            raise InputError(
                f"the language model knows {known} mask tokens, the mask tokenizer has {entries} codes: "
                "give the tokenizer it was trained with"
            )
        llm.model.eval()
        self.llm = llm
        self.tokenizer = tokenizer.eval()
        self.limits = limits
        self.batch_size = batch_size

    @classmethod
    def from_folders(cls, altollm: Path, tokenizer: Path, *, limits: SegmentLimits = DEFAULT_LIMITS) -> Self:
        """From two checkpoint folders; the tokenizer's may be one of `alto convert tokenizer`."""
        device = own_device()
        return cls(AltoLLM.load(altollm).to(device), load_any_tokenizer(tokenizer).to(device), limits=limits)

    def check(self, expressions: Sequence[str], max_tokens: int | None = None) -> None:
        """Raises InputError for whatever `segment` would refuse on any image."""
        check_wanted(None, max_tokens)
        self.limits.check_expressions(expressions)
        signals = Signals(self.llm.tokenizer)
        for number, text in enumerate(expressions, start=1):
            held = signals.first_in(text)
            if held is not None:
                raise InputError(f"expression {number} holds {held!r}, which the model reads as a signal")

    def segment(
        self,
        image: Picture,
        expressions: Sequence[str],
        *,
        adaptive: bool = True,
        max_tokens: int | None = None,
    ) -> list[Segmentation]:
        """One result an expression, in their order, of an (H, W, 3) uint8 RGB image, which is encoded once.

        adaptive: ask for as few codes as the mask needs, else for the full length.
        max_tokens (>= 1): codes of a mask, at most.
        """
        self.check(expressions, max_tokens)
        size = self.limits.check_image(image)
        seen = _SeenImage(
            by_llm=self.llm.encode_images([image]),
            by_tokenizer=embed_whole_image(self.tokenizer, [image]),
        )
        longest = self.tokenizer.config.max_length
        found = []
        for start in range(0, len(expressions), self.batch_size):
            batch = expressions[start : start + self.batch_size]
            prompts = [segment_prompt(text, adaptive=adaptive) for text in batch]
            answers = self._answer(seen, prompts, min(longest, max_tokens or longest))
            masks = decode_answers(self.tokenizer, seen.by_tokenizer, size, [answer for answer, _ in answers])
            found += [
                _segmentation(text, answer, score, mask)
                for text, (answer, score), mask in zip(batch, answers, masks, strict=True)
            ]
        return found

    def _answer(
        self, image: "_SeenImage", prompts: Sequence[str], max_length: int
    ) -> list[tuple[Answer, float]]:
        """Greedy answers with their scores."""
        llm = self.llm
        recording = _RecordedGreedy()
        questions = llm.questions(image.by_llm, prompts, max_length=max_length, image_of=[0] * len(prompts))
        answers = llm.generate(questions, recording)
        probabilities = torch.stack(recording.probabilities, 1).tolist()
        code_tokens = set(llm.vocabulary.codes)
        scored = []
        for ids, row in zip(answers, probabilities, strict=True):
            answer = llm.read(ids)
            said = row[: len(ids)]
            of_codes = [value for token, value in zip(ids, said, strict=True) if token in code_tokens]
            counted = of_codes[: answer.length] if _has_mask(answer) else said
            scored.append((answer, sum(counted) / len(counted)))
        return scored


@dataclass(frozen=True, kw_only=True, eq=False)
class _SeenImage:
    """by_llm: of the one image. by_tokenizer: (1, C, F, F)."""

    by_llm: ImageTokens
    by_tokenizer: Tensor


@dataclass(frozen=True, kw_only=True)
class _RecordedGreedy(Sampling):
    """Greedy. probabilities: of the tokens drawn, (B,) a step."""

    probabilities: list[Tensor] = field(default_factory=list)

    def draw(self, logits_BV: Tensor) -> Tensor:  # noqa: N803
        token = super().draw(logits_BV)
        self.probabilities.append(logits_BV.softmax(-1).gather(1, token[:, None])[:, 0])
        return token


def _has_mask(answer: Answer) -> bool:
    """As benchmarks count it: the mask of an answer that did not end is a miss."""
    return bool(answer.codes) and not answer.malformed


def _segmentation(expression: str, answer: Answer, score: float, mask: BoolMask) -> Segmentation:
    codes = answer.codes if _has_mask(answer) else ()
    rle = mask_arithmetic.encode(mask if codes else np.zeros_like(mask))
    return Segmentation(
        expression=expression,
        codes=codes,
        length=len(codes),
        score=round(score, 6),
        rle=CocoRle(size=(rle.height, rle.width), counts=rle.counts),
        answer=answer.text,
        no_target=answer.no_target,
        malformed=answer.malformed,
    )
