"""gIoU, length and refusals of a model on held-out referring records, as the training jobs report them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    """Images to evaluate on, encoded for the de-tokenizer once, with one question a record.

    image_embeddings: (I, C, h, w).
    """

    images: Sequence[ReferringImage]
    image_embeddings: Tensor
    questions: Sequence[Question]

    @classmethod
    def of(cls, images: Sequence[ReferringImage], tokenizer: MaskTokenizer) -> "HeldOut":
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
        embeddings = embed_whole_image(tokenizer, [image.image for image in images])
        return cls(images=images, image_embeddings=embeddings, questions=questions)

    def few(self, most: int) -> "HeldOut":
        """Up to `most` of the questions, evenly from all."""
        chosen = [self.questions[place] for place in evenly_spaced(len(self.questions), most)]
        images = [question.image_index for question in chosen]
        return HeldOut(
            images=[self.images[index] for index in images],
            image_embeddings=self.image_embeddings[images],
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
    """Ask every question once, greedily."""
    llm.model.eval()
    asked: list[Asked] = []
    for start in range(0, len(held_out.images), IMAGES_A_BATCH):
        questions = [q for q in held_out.questions if start <= q.image_index < start + IMAGES_A_BATCH]
        answers = llm.answer(
            [held_out.images[q.image_index].image for q in questions],
            [segment_prompt(q.expression, adaptive=adaptive) for q in questions],
            max_length=tokenizer.config.max_length,
        )
        for index in dict.fromkeys(q.image_index for q in questions):
            mine = [place for place, q in enumerate(questions) if q.image_index == index]
            masks = decode_answers(
                tokenizer,
                held_out.image_embeddings[index : index + 1],
                held_out.images[index].image.shape[:2],
                [answers[place] for place in mine],
            )
            asked += [
                Asked(
                    question=questions[place],
                    answer=answers[place],
                    mask=mask,
                    overlap=overlap(mask, questions[place].target, questions[place].ignored),
                )
                for place, mask in zip(mine, masks, strict=True)
            ]
    return Evaluation(asked=asked)
