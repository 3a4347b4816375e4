"""Training examples of ALToLLM: referring records joined with the codes of their masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alto_models.altollm.boxes import BoxBins, box_bins, boxes_text
from alto_models.altollm.conversation import NO_TARGET_ANSWER, Template, mask_answer_ids, segment_prompt
from alto_models.altollm.packing import Branch
from alto_models.altollm.processor import square_thumbnail
from alto_models.altollm.vocabulary import MaskVocabulary
from alto_models.data.referring import ReferringImages, ReferringRecord
from data_contracts.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Example:
    """One record. codes: of its mask at full length, () where there is no target; length: kept codes.

    boxes: one an instance.
    """

    record_id: str
    expressions: tuple[str, ...]
    codes: tuple[int, ...]
    length: int
    boxes: tuple[BoxBins, ...]


@dataclass(frozen=True, kw_only=True)
class ExampleImage:
    """thumbnail: (S, S, 3) uint8, what the vision tower sees."""

    image_id: str
    thumbnail: NDArray[np.uint8]
    examples: tuple[Example, ...]


MaskCodes = dict[tuple[str, str], tuple[tuple[int, ...], int]]


def read_mask_codes(folder: Path) -> MaskCodes:
    """(data set, record id) -> (codes, kept length), from the Parquet files of `mask_tokens`."""
    paths = sorted(folder.rglob("*.parquet"))
    if not paths:
        raise InputError(f"{folder}: no Parquet file inside; run the mask_tokens stage first")
    rows = [
        row
        for path in paths
        for row in pq.read_table(path, columns=["dataset", "record_id", "codes", "length"]).to_pylist()
    ]
    return {(row["dataset"], row["record_id"]): (tuple(row["codes"]), row["length"]) for row in rows}


def join_examples(images: ReferringImages, codes: MaskCodes, thumbnail_size: int) -> list[ExampleImage]:
    """All images that have a record.

    Raises InputError naming the record where a mask has no codes.
    """
    joined = []
    for image in images:
        examples = []
        for record in image.records:
            if not record.no_target and (image.source, record.record_id) not in codes:
                raise InputError(
                    f"record {record.record_id} of {image.source}: its mask has no codes in mask_tokens; "
                    "run that stage again on the same data"
                )
            found, length = ((), 0) if record.no_target else codes[image.source, record.record_id]
            examples.append(
                Example(
                    record_id=record.record_id,
                    expressions=record.expressions,
                    codes=found,
                    length=length,
                    boxes=_boxes(record, max(image.image.shape)),
                )
            )
        if examples:
            thumbnail = square_thumbnail(image.image, thumbnail_size)
            joined.append(
                ExampleImage(image_id=image.image_id, thumbnail=thumbnail, examples=tuple(examples))
            )
    return joined


def _boxes(record: ReferringRecord, side: int) -> tuple[BoxBins, ...]:
    found = (instance.box for instance in record.instances)
    return tuple(box_bins(box.x, box.y, box.x + box.width - 1, box.y + box.height - 1, side) for box in found)


class BranchMaker:
    """Turns examples into token ids; the codes must be of a codebook that `vocabulary` covers.

    code_half_life: after this many codes their weight in the loss has halved: the first say where the mask
    is, each later one adds less. None: all weigh the same.
    box_first: answers name the boxes before the mask, as a base model that knows boxes can from the start.
    no_target_weight: of the token that decides for "no such object"; such answers are rare, and a model that
        gives them their true probability seldom prefers them.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: MaskVocabulary,
        template: Template,
        *,
        code_half_life: float | None = None,
        box_first: bool = False,
        no_target_weight: float = 1.0,
    ) -> None:
        self.box_first = box_first
        self.code_half_life = code_half_life
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.template = template
        self.prompt_ids = lru_cache(100_000)(lambda prompt: template.question_ids(tokenizer, prompt))
        self._no_target = template.answer_ids(tokenizer, NO_TARGET_ANSWER)
        self._no_target_weights = [no_target_weight] + [1.0] * (len(self._no_target) - 1)

    def branch(self, example: Example, expression: str, *, adaptive: bool) -> Branch:
        """Question and answer: all codes of the mask, or with `adaptive` the kept ones."""
        prompt = self.prompt_ids(segment_prompt(expression, adaptive=adaptive))
        codes: Sequence[int] = example.codes[: example.length] if adaptive else example.codes
        if not codes:
            answer = self._no_target
            return Branch(ids=[*prompt, *answer], prompt_length=len(prompt), weights=self._no_target_weights)
        boxes = boxes_text(example.boxes) if self.box_first else ""
        answer = mask_answer_ids(self.tokenizer, self.template, self.vocabulary.encode(codes), boxes)
        return Branch(ids=[*prompt, *answer], prompt_length=len(prompt), weights=self._weights(answer))

    def _weights(self, answer: Sequence[int]) -> list[float]:
        weights = [1.0] * len(answer)
        if self.code_half_life is not None:
            first = answer.index(self.vocabulary.start) + 1
            for place in range(first, answer.index(self.vocabulary.end)):
                weights[place] = 0.5 ** ((place - first) / self.code_half_life)
        return weights


def draw_branches(
    image: ExampleImage,
    maker: BranchMaker,
    rng: np.random.Generator,
    *,
    most: int,
    adaptive_share: float,
) -> list[Branch]:
    """Up to `most` records of an image in random order, each with one of its expressions."""
    chosen = rng.permutation(len(image.examples))[:most]
    branches = []
    for index in chosen:
        example = image.examples[int(index)]
        expression = example.expressions[int(rng.integers(len(example.expressions)))]
        branches.append(maker.branch(example, expression, adaptive=bool(rng.random() < adaptive_share)))
    return branches
