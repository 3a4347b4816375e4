"""Training examples of ALToLLM: referring records joined with the codes of their masks."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from alto_models.altollm.boxes import BoxBins, box_bins, boxes_text
from alto_models.altollm.conversation import (
    NO_TARGET_ANSWER,
    REQUESTS,
    Signals,
    Template,
    mask_answer_ids,
    segment_prompt,
)
from alto_models.altollm.packing import Branch
from alto_models.altollm.vocabulary import MaskVocabulary
from alto_models.data.referring import ReferringImages, ReferringRecord
from alto_models.masks import Rle
from data_contracts.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Example:
    """One record. codes: of its mask at full length, () where there is no target; length: kept codes.

    rle: the mask, None where there is no target. boxes: one an instance.
    ignore: pixels that count neither way, None for none.
    """

    record_id: str
    expressions: tuple[str, ...]
    codes: tuple[int, ...]
    length: int
    rle: Rle | None
    boxes: tuple[BoxBins, ...]
    ignore: Rle | None = None


@dataclass(frozen=True, kw_only=True)
class ExampleImage:
    """index: its place among the images that were joined. source: its data set."""

    index: int
    source: str
    image_id: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An example as it is asked about once. request: one of `conversation.REQUESTS`."""

    example: Example
    expression: str
    adaptive: bool
    request: str = REQUESTS[0]

    @property
    def codes(self) -> tuple[int, ...]:
        """What the answer holds: all codes of the mask, or the kept ones."""
        return self.example.codes[: self.example.length] if self.adaptive else self.example.codes


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


def join_examples(
    images: ReferringImages, codes: MaskCodes, vocabulary: MaskVocabulary, signals: Signals
) -> list[ExampleImage]:
    """All images that have a record.

    Raises InputError naming the record where a mask has no codes, or codes that the vocabulary lacks, or an expression
    holds a signal.
    """
    joined = []
    for index in range(len(images)):
        source, image_id = images.name(index)
        examples = []
        for record in images.records(index):
            with _named(record, source):
                _refuse_signals(record, signals)
                examples.append(_example(record, codes.get((source, record.record_id)), vocabulary))
        if examples:
            joined.append(
                ExampleImage(index=index, source=source, image_id=image_id, examples=tuple(examples))
            )
    return joined


def refuse_signals(images: ReferringImages, signals: Signals) -> None:
    """Raises InputError naming a record with an expression that holds a signal."""
    for index in range(len(images)):
        source, _ = images.name(index)
        for record in images.records(index):
            with _named(record, source):
                _refuse_signals(record, signals)


def _refuse_signals(record: ReferringRecord, signals: Signals) -> None:
    for text in record.expressions:
        if (signal := signals.first_in(text)) is not None:
            raise InputError(
                f"the expression {text!r} holds {signal!r}, which the model reads as a signal: take it out"
            )


@contextmanager
def _named(record: ReferringRecord, source: str) -> Iterator[None]:
    """What is wrong inside is said of the record."""
    try:
        yield
    except InputError as error:
        raise InputError(f"record {record.record_id} of {source}: {error}") from None


def _example(
    record: ReferringRecord,
    coded: tuple[tuple[int, ...], int] | None,
    vocabulary: MaskVocabulary,
) -> Example:
    if record.rle is None:
        coded = ((), 0)
    elif coded is None:
        raise InputError("its mask has no codes in mask_tokens; run that stage again on the same data")
    codes, length = coded
    vocabulary.encode(codes)
    return Example(
        record_id=record.record_id,
        expressions=record.expressions,
        codes=codes,
        length=length,
        rle=record.rle,
        boxes=() if record.rle is None else _boxes(record, max(record.rle.height, record.rle.width)),
        ignore=record.ignore,
    )


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
        self.signals = Signals(tokenizer)
        self._question_ids = lru_cache(100_000)(self._read_question)
        self._no_target = template.answer_ids(tokenizer, NO_TARGET_ANSWER)
        self._no_target_weights = [no_target_weight] + [1.0] * (len(self._no_target) - 1)

    def conversation(self, turns: Sequence[Turn]) -> Branch:
        """Each question after the former answers; all answers are learned."""
        return self._branch(
            (
                segment_prompt(turn.expression, adaptive=turn.adaptive, request=turn.request),
                *self._answer(turn),
            )
            for turn in turns
        )

    def text_conversation(self, turns: Iterable[tuple[str, str]]) -> Branch:
        """Questions and answers that are plain text."""
        answers = ((asked, self.template.answer_ids(self.tokenizer, said)) for asked, said in turns)
        return self._branch((asked, answer, [1.0] * len(answer)) for asked, answer in answers)

    def _branch(self, turns: Iterable[tuple[str, list[int], list[float]]]) -> Branch:
        ids: list[int] = []
        weights: list[float] = []
        prompt_length = 0
        for place, (question, answer, answer_weights) in enumerate(turns):
            asked = self._question_ids(question, place == 0)
            prompt_length = prompt_length or len(asked)
            ids += [*asked, *answer]
            weights += [0.0] * len(asked) + answer_weights
        return Branch(ids=ids, prompt_length=prompt_length, weights=weights[prompt_length:])

    def _read_question(self, question: str, first: bool) -> list[int]:
        return self.template.question_ids(self.tokenizer, question, first=first)

    def _answer(self, turn: Turn) -> tuple[list[int], list[float]]:
        """Token ids and their weights."""
        if not turn.codes:
            return self._no_target, self._no_target_weights
        boxes = boxes_text(turn.example.boxes) if self.box_first else ""
        mask = self.vocabulary.encode(turn.codes)
        answer = mask_answer_ids(self.tokenizer, self.template, mask, boxes)
        return answer, self._weights(answer)

    def _weights(self, answer: Sequence[int]) -> list[float]:
        weights = [1.0] * len(answer)
        if self.code_half_life is not None:
            first = answer.index(self.vocabulary.start) + 1
            for place in range(first, answer.index(self.vocabulary.end)):
                weights[place] = 0.5 ** ((place - first) / self.code_half_life)
        return weights


def draw_conversations(
    image: ExampleImage,
    rng: np.random.Generator,
    *,
    most: int,
    turns: int,
    adaptive_share: float,
    varied_requests: float,
) -> list[list[Turn]]:
    """Up to `most` records of an image in random order, each with one of its expressions.

    turns: of a conversation, at most; how many each gets is drawn. varied_requests: share of turns that are not put as
    evaluation does.
    """
    drawn = []
    for index in rng.permutation(len(image.examples))[:most]:
        example = image.examples[int(index)]
        expression = example.expressions[int(rng.integers(len(example.expressions)))]
        adaptive = bool(rng.random() < adaptive_share)
        varied = rng.random() < varied_requests
        request = REQUESTS[int(rng.integers(1, len(REQUESTS)))] if varied else REQUESTS[0]
        drawn.append(Turn(example=example, expression=expression, adaptive=adaptive, request=request))
    conversations = []
    while drawn:
        size = int(rng.integers(1, turns + 1))
        conversations.append(drawn[:size])
        drawn = drawn[size:]
    return conversations
