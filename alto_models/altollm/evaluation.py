"""gIoU, length and refusals of a model on held-out referring records, as the training jobs report them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from torch import Tensor

from alto_models import masks as mask_arithmetic
from alto_models.altollm.answering import AltoLLM, Answer
from alto_models.altollm.conversation import segment_prompt
from alto_models.altollm.segmenting import BinaryMask, decode_answers
from alto_models.data.referring import ReferringImage, ReferringImages
from alto_models.metrics import Overlap, overlap
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.whole_image import embed_whole_image
from alto_models.training.processes import gathered_objects, process_count, process_rank

IMAGES_A_BATCH = 16


def evenly_spaced(count: int, most: int) -> list[int]:
    """Up to `most` of the places 0..count - 1, first and last included."""
    return [int(place) for place in np.linspace(0, count - 1, min(most, count)).round()]


def spread(images: ReferringImages, most: int) -> list[ReferringImage]:
    """Up to `most` images, evenly from all (and so from every data set)."""
    return [images[place] for place in evenly_spaced(len(images), most)]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One expression of a record; target: (H, W) bool, nothing in it where there is no target; ignored: the
    pixels that count neither way."""

    image_index: int
    record_id: str
    expression: str
    target: BinaryMask
    ignored: BinaryMask | None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question with its answer, the decoded mask and the overlap with the target."""

    question: Question
    answer: Answer
    mask: BinaryMask
    overlap: Overlap


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Images to evaluate on, with one question a record, in the order of the images."""

    images: Sequence[ReferringImage]
    questions: Sequence[Question]
    _embedded: dict[range, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, images: Sequence[ReferringImage]) -> "HeldOut":
        """The first expression of every record is asked."""
        questions = []
        for index, image in enumerate(images):
            for record in image.records:
                target = np.zeros(image.image.shape[:2], dtype=bool)
                if record.rle is not None:
                    target = mask_arithmetic.decode(record.rle).astype(bool)
                questions.append(
                    Question(
                        image_index=index,
                        record_id=record.record_id,
                        expression=record.expressions[0],
                        target=target,
                        ignored=record.ignored,
                    )
                )
        return cls(images=images, questions=questions)

    @property
    def batches(self) -> list[range]:
        """Places of images that are asked about together: the same ones, however many processes there are."""
        starts = range(0, len(self.images), IMAGES_A_BATCH)
        return [range(start, min(start + IMAGES_A_BATCH, len(self.images))) for start in starts]

    def embedded(self, tokenizer: MaskTokenizer, batch: range) -> Tensor:
        """(images, C, h, w) of a batch for the de-tokenizer, which encodes it the first time."""
        if batch not in self._embedded:
            pictures = [self.images[index].image for index in batch]
            self._embedded[batch] = embed_whole_image(tokenizer, pictures)
        return self._embedded[batch]

    def few(self, most: int) -> "HeldOut":
        """Up to `most` of the questions, evenly from all."""
        chosen = [self.questions[place] for place in evenly_spaced(len(self.questions), most)]
        return HeldOut(
            images=[self.images[question.image_index] for question in chosen],
            questions=[replace(question, image_index=place) for place, question in enumerate(chosen)],
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One pass over a HeldOut. Metrics as `alto_models.metrics`; mean_length over answers with a mask."""

    asked: Sequence[Asked]

    def figures(self, prefix: str) -> dict[str, float]:
        """giou, ciou over all questions, n_acc over those without target, mean_length, malformed share."""
        union = sum(one.overlap.union for one in self.asked)
        lengths = [one.answer.length for one in self.asked if one.answer.length]
        refusals = [one.answer.no_target for one in self.asked if not one.overlap.target_area]
        values = {
            "giou": float(np.mean([_iou(one) for one in self.asked])),
            "ciou": sum(one.overlap.intersection for one in self.asked) / max(union, 1),
            "mean_length": float(np.mean(lengths)) if lengths else 0.0,
            "malformed": float(np.mean([one.answer.malformed for one in self.asked])),
        }
        if refusals:
            values["n_acc"] = float(np.mean(refusals))
        return {f"{prefix}_{name}": round(value, 4) for name, value in values.items()}


def _iou(asked: Asked) -> float:
    """A malformed answer is a miss, also where there is no target."""
    return 0.0 if asked.answer.malformed else asked.overlap.iou


def evaluate(llm: AltoLLM, tokenizer: MaskTokenizer, held_out: HeldOut, *, adaptive: bool) -> Evaluation:
    """Ask every question once, greedily. Several processes share the batches; each gets all answers."""
    llm.model.eval()
    own = [
        answered
        for batch in held_out.batches[process_rank() :: process_count()]
        for answered in _ask(llm, tokenizer, held_out, batch, adaptive=adaptive)
    ]
    return Evaluation(
        asked=[
            Asked(
                question=held_out.questions[one.place],
                answer=one.answer,
                mask=mask_arithmetic.decode(one.mask).astype(bool),
                overlap=one.overlap,
            )
            for one in sorted(gathered_objects(own), key=attrgetter("place"))
        ]
    )


class _Answered(NamedTuple):
    """What a process finds out about the question at `place`."""

    place: int
    answer: Answer
    mask: mask_arithmetic.Rle
    overlap: Overlap


def _ask(
    llm: AltoLLM, tokenizer: MaskTokenizer, held_out: HeldOut, batch: range, *, adaptive: bool
) -> Iterator[_Answered]:
    questions = {
        place: question for place, question in enumerate(held_out.questions) if question.image_index in batch
    }
    answers = llm.answer(
        [held_out.images[question.image_index].image for question in questions.values()],
        [segment_prompt(question.expression, adaptive=adaptive) for question in questions.values()],
        max_length=tokenizer.config.max_length,
    )
    answer_of = dict(zip(questions, answers, strict=True))
    for embedding, index in zip(held_out.embedded(tokenizer, batch).split(1), batch, strict=True):
        mine = [place for place, question in questions.items() if question.image_index == index]
        size = held_out.images[index].image.shape[:2]
        masks = decode_answers(tokenizer, embedding, size, [answer_of[place] for place in mine])
        for place, mask in zip(mine, masks, strict=True):
            question = questions[place]
            counted = overlap(mask, question.target, question.ignored)
            yield _Answered(place, answer_of[place], mask_arithmetic.encode(mask), counted)
