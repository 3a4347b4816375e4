"""ALToLLM and the mask tokenizer together as systems of a benchmark."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from alto_models.altollm.answering import Answer
from alto_models.altollm.conversation import segment_prompt
from alto_models.data.shards import Picture
from alto_models.tokenizer.interface import Tokenizer
from alto_models.tokenizer.whole_image import decode_to_image, embed_whole_image
from alto_models.training.precision import to_device
from jobs.benchmarking.batches import whole_images
from jobs.benchmarking.questions import Question
from jobs.benchmarking.results import ADAPTIVE, FULL
from jobs.benchmarking.rows import Mask, Prediction

# The released evaluation asks so on gRefCOCO; its wording is not published, and this one is ours.
PRESENCE_PROMPT = "Is there <ref>{}</ref> in the image? Please answer yes or no."
DENIAL = re.compile(r"\s*no\b", re.IGNORECASE)


class LanguageModel(Protocol):
    """`AltoLLM`, or what stands in for it. max_length: codes of a mask, at most."""

    def answer(
        self, images: Sequence[Picture], prompts: Sequence[str], *, max_length: int
    ) -> Sequence[Answer]: ...


@dataclass(frozen=True, kw_only=True)
class LanguageSystem:
    """A language model whose mask tokens the mask tokenizer draws.

    text_ignored: asks with an expression of the same image that means something else, so that only what
    can be had without reading the question is left.
    presence_asked_first: whether the model is first asked if there is such an object; "no" is a prediction of nothing.
    """

    name: str
    model: LanguageModel
    tokenizer: Tokenizer
    batch_size: int
    modes: tuple[str, ...] = (FULL, ADAPTIVE)
    text_ignored: bool = False
    presence_asked_first: bool = False

    def predict(self, questions: Sequence[Question], mode: str) -> list[Prediction]:
        predictions: list[Prediction] = []
        for batch in whole_images(questions, lambda one: one.image.image_id, self.batch_size):
            if not self.presence_asked_first:
                predictions += self._predict_batch(batch, mode)
                continue
            absent = self._absent(batch)
            present = [question for place, question in enumerate(batch) if place not in absent]
            masks = iter(self._predict_batch(present, mode) if present else ())
            predictions += [absent[place] if place in absent else next(masks) for place in range(len(batch))]
        return predictions

    def _absent(self, questions: Sequence[Question]) -> dict[int, Prediction]:
        """Place in `questions` -> prediction of nothing, where the model denies that there is such an object."""
        answers = self.model.answer(
            [question.image.picture for question in questions],
            [PRESENCE_PROMPT.format(question.expression) for question in questions],
            max_length=self.tokenizer.config.max_length,
        )
        return {
            place: Prediction(mask=None, asked=question.expression, answer=answer.text)
            for place, (question, answer) in enumerate(zip(questions, answers, strict=True))
            if not answer.codes and DENIAL.match(answer.text)
        }

    def _predict_batch(self, questions: Sequence[Question], mode: str) -> list[Prediction]:
        asked = [q.expression_of_another_record() if self.text_ignored else q.expression for q in questions]
        prompts = [segment_prompt(text, adaptive=mode == ADAPTIVE) for text in asked]
        answers = self.model.answer(
            [q.image.picture for q in questions], prompts, max_length=self.tokenizer.config.max_length
        )
        drawn = [index for index, answer in enumerate(answers) if answer.codes and not answer.malformed]
        decoded = decode_masks(
            self.tokenizer, [questions[index] for index in drawn], [answers[index].codes for index in drawn]
        )
        masks = dict(zip(drawn, decoded, strict=True))
        return [
            Prediction(
                mask=masks.get(index),
                asked=text,
                answer=answer.text,
                codes=answer.codes if index in masks else (),
                malformed=answer.malformed,
            )
            for index, (text, answer) in enumerate(zip(asked, answers, strict=True))
        ]


@torch.inference_mode()
def decode_masks(
    tokenizer: Tokenizer, questions: Sequence[Question], codes: Sequence[Sequence[int]]
) -> list[Mask]:
    """One (H, W) bool mask of the original image a question. Each image is encoded once."""
    if not questions:
        return []
    images = {question.image.image_id: question.image.picture for question in questions}
    place = {image_id: index for index, image_id in enumerate(images)}
    embeddings = embed_whole_image(tokenizer, list(images.values()))
    of_question = torch.tensor([place[question.image.image_id] for question in questions])
    lengths = torch.tensor([len(one) for one in codes])
    padded = torch.zeros(len(codes), int(lengths.max()), dtype=torch.long)
    for row, one in zip(padded, codes, strict=True):
        row[: len(one)] = torch.tensor(one)
    sizes = [(question.image.height, question.image.width) for question in questions]
    own = embeddings[to_device(of_question, tokenizer.device)]
    return decode_to_image(tokenizer, padded, lengths, own, sizes)
