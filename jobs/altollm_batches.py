"""What each step of supervised fine-tuning learns from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.conversation import REQUESTS
from alto_models.altollm.examples import BranchMaker, ExampleImage, Turn, draw_conversations
from alto_models.altollm.mask_loss import MaskLossSettings, MaskTargets, code_places
from alto_models.altollm.packing import Branch, PackedBatch, pack
from alto_models.altollm.processor import normalise, tiles
from alto_models.altollm.vocabulary import padding_id
from alto_models.data.referring import ReferringImages
from alto_models.data.shards import Picture
from data_contracts.errors import InputError
from jobs.altollm_sampling import batch_of
from jobs.formats.plain_conversations import PlainConversation, read_picture, read_plain_conversations
from jobs.runner.context import JobConfig

TILE_BYTES = 512 * 2**20  # of images kept as the model sees them


class GeneralVqa(JobConfig):
    """Conversations in plain words, mixed in so that the model does not unlearn them."""

    file: Path | None = Field(
        description="JSON lines, see jobs/formats/plain_conversations.py; null for none"
    )
    sha256: str | None = Field(description="of the file", pattern="^[0-9a-f]{64}$")
    share: float = Field(ge=0, lt=1, description="of the sequences of a step")

    @model_validator(mode="after")
    def _file_has_a_checksum(self) -> Self:
        if self.file is not None and self.sha256 is None:
            raise ValueError("give the sha256 of the file: what was learned from belongs to the record")
        return self


class BatchConfig(JobConfig):
    """Sizes are per optimizer step, over all processes."""

    images_per_step: int = Field(gt=0, description="images of an optimizer step, over all processes")
    records_per_image: int = Field(gt=0, description="packed into one sequence, at most")
    turns_per_conversation: int = Field(
        gt=0, description="records asked about one after the other, at most; 1: each for itself"
    )
    max_tokens: int = Field(gt=0, description="of a sequence; a longer record is refused")
    code_half_life: float | None = Field(
        gt=0, description="codes after which their weight in the loss has halved; null: all weigh the same"
    )
    box_first: bool = Field(description="answers name the boxes of the objects before the mask")
    no_target_weight: float = Field(
        gt=0, description="in the loss, of the first token of an answer that says there is no such object"
    )
    adaptive_share: float = Field(ge=0, le=1, description="of prompts that ask for an adaptive length")
    varied_requests: float = Field(
        ge=0, le=1, description="share of prompts not put as `Segment …`, the way evaluation does"
    )
    mask_loss: MaskLossSettings = Field(description="loss of the decoded masks beside the cross-entropy")
    general_vqa: GeneralVqa = Field(description="conversations in plain words, mixed in")


@dataclass(frozen=True, kw_only=True)
class SupervisedBatch:
    """samples: a name a sequence. pixels: (tiles of all, 3, S, S), normalised. tiles: of each sequence.

    left_out: records `max_tokens` had no room for. targets: what mask loss compares with, None without it.
    """

    samples: Sequence[str]
    pixels: Tensor
    tiles: Sequence[int]
    packed: PackedBatch
    left_out: int
    targets: MaskTargets | None


@dataclass(frozen=True, kw_only=True)
class _Conversations:
    """About one image. tiles: (T, S, S, 3) uint8. index: of the image, where its turns have masks."""

    name: str
    tiles: Picture
    branches: Sequence[Branch]
    index: int = -1
    turns: Sequence[Turn] = ()
    left_out: int = 0


class SupervisedBatches:
    """The batch of a step depends on seed and step only; each sequence on its place in the step as well.

    examples: of `images`. Raises InputError naming the record that is longer than `max_tokens`, or the line of
    `general_vqa` that is wrong.
    """

    def __init__(
        self,
        config: BatchConfig,
        llm: AltoLLM,
        images: ReferringImages,
        examples: Sequence[ExampleImage],
        seed: int,
    ) -> None:
        self._config = config
        self._images = images
        self._examples = examples
        self._seed = seed
        self._llm = llm
        self._max_tiles = llm.max_tiles
        most = self._max_tiles + (self._max_tiles > 1)
        self._longest_prefix = len(self._prefix(most))
        self._room = config.max_tokens - self._longest_prefix
        self._padding = padding_id(llm.tokenizer)
        self._side = llm.image_size
        self._maker = BranchMaker(
            llm.tokenizer,
            llm.vocabulary,
            llm.template,
            code_half_life=config.code_half_life,
            box_first=config.box_first,
            no_target_weight=config.no_target_weight,
        )
        self._tiles = lru_cache(TILE_BYTES // (3 * self._side**2 * most))(self._cut_tiles)
        self._general: list[PlainConversation] = []
        if config.general_vqa.file is not None and config.general_vqa.sha256 is not None:
            self._general = read_plain_conversations(
                config.general_vqa.file, config.general_vqa.sha256, self._maker.signals.first_in
            )
        self._require_room()

    def at(self, step: int, places: range) -> SupervisedBatch:
        """The sequences at `places` of the step's `images_per_step`."""
        indices = batch_of(step, self._config.images_per_step, len(self._examples), self._seed)
        drawn = [
            self._draw(self._examples[indices[place]], np.random.default_rng([self._seed, step, place]))
            for place in places
        ]
        packed = pack(
            [self._prefix(len(each.tiles)) for each in drawn],
            [each.branches for each in drawn],
            padding_id=self._padding,
            image_token=self._llm.model.config.image_token_id,
        )
        return SupervisedBatch(
            samples=[each.name for each in drawn],
            pixels=normalise(np.concatenate([each.tiles for each in drawn])),
            tiles=[len(each.tiles) for each in drawn],
            packed=packed,
            left_out=sum(each.left_out for each in drawn),
            targets=self._targets(drawn, packed) if self._config.mask_loss.weight else None,
        )

    def _draw(self, image: ExampleImage, rng: np.random.Generator) -> _Conversations:
        """Of the image, or in its place a general conversation."""
        if self._general and rng.random() < self._config.general_vqa.share:
            plain = self._general[int(rng.integers(len(self._general)))]
            return _Conversations(
                name=plain.name,
                tiles=tiles(read_picture(plain), self._side, self._max_tiles),
                branches=[self._maker.text_conversation(plain.turns)],
            )
        drawn = draw_conversations(
            image,
            rng,
            most=self._config.records_per_image,
            turns=self._config.turns_per_conversation,
            adaptive_share=self._config.adaptive_share,
            varied_requests=self._config.varied_requests,
        )
        fitting = list(self._fitting(drawn))
        turns = [turn for turns, _ in fitting for turn in turns]
        return _Conversations(
            name=f"{image.source}/{image.image_id} ({', '.join(turn.example.record_id for turn in turns)})",
            tiles=self._tiles(image.index),
            branches=[branch for _, branch in fitting],
            index=image.index,
            turns=turns,
            left_out=sum(map(len, drawn)) - len(turns),
        )

    def _fitting(self, conversations: Iterable[list[Turn]]) -> Iterable[tuple[list[Turn], Branch]]:
        """As many as there is room for; the last turns of those that are too long are left out."""
        room = self._room
        for turns in conversations:
            while turns:
                branch = self._maker.conversation(turns)
                if len(branch.ids) <= room:
                    room -= len(branch.ids)
                    yield turns, branch
                    break
                turns = turns[:-1]

    def _targets(self, drawn: Sequence[_Conversations], packed: PackedBatch) -> MaskTargets:
        asked = [(each.index, [turn for turn in each.turns if turn.codes]) for each in drawn]
        asked = [(index, turns) for index, turns in asked if turns]
        masked = [turn.example for _, turns in asked for turn in turns]
        return MaskTargets(
            pictures=[self._images[index].image for index, _ in asked],
            image_of=[place for place, (_, turns) in enumerate(asked) for _ in turns],
            masks=[example.rle for example in masked if example.rle is not None],
            ignored=[example.ignore for example in masked],
            lengths=[len(turn.codes) for _, turns in asked for turn in turns],
            places=code_places(packed, self._maker.vocabulary),
        )

    def _prefix(self, count: int) -> list[int]:
        """The start of a conversation about an image of so many tiles."""
        return self._llm.prefix(self._llm.model.config.image_seq_length * count)

    def _cut_tiles(self, index: int) -> Picture:
        return tiles(self._images[index].image, self._side, self._max_tiles)

    def _require_room(self) -> None:
        """Every record has to fit into a sequence of its own, however it is put."""
        longest = max(REQUESTS, key=len) if self._config.varied_requests else REQUESTS[0]
        share = self._config.adaptive_share
        forms = [form for form, asked in ((False, share < 1), (True, share > 0)) if asked]
        records = ((image, example) for image in self._examples for example in image.examples)
        for image, example in records:
            for expression, adaptive in product(example.expressions, forms):
                turn = Turn(example=example, expression=expression, adaptive=adaptive, request=longest)
                self._require_fits(
                    self._maker.conversation([turn]), f"record {example.record_id} of {image.source}"
                )
        for plain in self._general:
            self._require_fits(self._maker.text_conversation(plain.turns), f"general_vqa: {plain.name}")

    def _require_fits(self, branch: Branch, name: str) -> None:
        if len(branch.ids) > self._room:
            length = self._longest_prefix + len(branch.ids)
            raise InputError(
                f"{name} takes {length} tokens with its image, more than max_tokens ({self._config.max_tokens}): "
                "shorten its text or raise max_tokens"
            )
