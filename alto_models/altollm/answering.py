"""ALToLLM for use: images and prompts in, answers with mask codes out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alto_models.altollm.checkpoint import load_llm, save_llm
from alto_models.altollm.conversation import Template, is_no_target
from alto_models.altollm.generation import Questions, Sampling, generate
from alto_models.altollm.grammar import MaskGrammar
from alto_models.altollm.network import ImageTokens, image_embeddings, keep_rotary_frequencies
from alto_models.altollm.processor import normalise, tiles
from alto_models.altollm.vocabulary import MaskVocabulary, token_id

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration

Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """text: without mask tokens. masks: the codes of each mask in it.

    no_target: says that there is no such object. malformed: neither a mask nor that, or a mask or the answer did not
    end. (So is an answer in plain words to another question; its `text` is what counts.)
    """

    text: str
    masks: tuple[tuple[int, ...], ...]
    no_target: bool
    malformed: bool

    @property
    def codes(self) -> tuple[int, ...]:
        """Of the first mask, () if there is none."""
        return self.masks[0] if self.masks else ()

    @property
    def length(self) -> int:
        """Of the first mask, in codes."""
        return len(self.codes)


class AltoLLM:
    """A checkpoint with its tokenizer and mask vocabulary."""

    def __init__(self, model: "InternVLForConditionalGeneration", tokenizer: PreTrainedTokenizerBase) -> None:
        keep_rotary_frequencies(model)
        self.model = model
        self.tokenizer = tokenizer
        self.template = Template.of(tokenizer)
        self.vocabulary = MaskVocabulary.of(tokenizer)
        self._code_of = {token: code for code, token in enumerate(self.vocabulary.codes)}
        self.grammar = MaskGrammar(tokenizer, self.vocabulary, model.config.text_config.vocab_size)
        self.turn_end = token_id(tokenizer, self.template.turn_end)
        self.prefix = lru_cache(self._prefix)  # of the number of image tokens

    @classmethod
    def load(cls, folder: Path) -> "AltoLLM":
        """Raises InputError for a folder that holds no ALToLLM checkpoint."""
        return cls(*load_llm(folder))

    def to(self, device: torch.device) -> Self:
        self.model.to(device)
        return self

    def save(self, folder: Path) -> None:
        save_llm(folder, self.model, self.tokenizer)

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels, the one that gives the configured number of image tokens."""
        config = self.model.config
        tokens_a_side = math.isqrt(config.image_seq_length)
        return round(tokens_a_side / config.downsample_ratio) * int(config.vision_config.patch_size[0])

    @property
    def max_tiles(self) -> int:
        """Tiles that an image is cut into, at most; part of the checkpoint, 1 where it says nothing."""
        return int(getattr(self.model.config, "max_tiles", 1))

    @max_tiles.setter
    def max_tiles(self, count: int) -> None:
        self.model.config.max_tiles = count

    def prefixes(self, image: ImageTokens) -> list[list[int]]:
        """Token ids of a conversation's start with each of the images, whose embeddings are given."""
        return [self.prefix(len(one)) for one in image]

    def _prefix(self, image_tokens: int) -> list[int]:
        return self.template.image_ids(self.tokenizer, image_tokens)

    @torch.no_grad()
    def encode_images(self, images: Sequence[Picture]) -> ImageTokens:
        """Embeddings of (H, W, 3) uint8 images of any size; with one tile each, one tensor."""
        cut = [tiles(image, self.image_size, self.max_tiles) for image in images]
        embedded = image_embeddings(self.model, normalise(np.concatenate(cut)))
        if self.max_tiles == 1:
            return embedded
        return [mine.flatten(0, 1) for mine in embedded.split([len(each) for each in cut])]

    def answer(
        self,
        images: Sequence[Picture],
        prompts: Sequence[str],
        *,
        max_length: int,
        sampling: Sampling | None = None,
    ) -> list[Answer]:
        """One answer a prompt, on the image at the same place in `images`.

        An image given several times (the same array) is encoded once. max_length: codes of a mask, at most.
        sampling: greedy by default.
        """
        places: dict[int, int] = {}
        distinct: list[Picture] = []
        for picture in images:
            if id(picture) not in places:
                places[id(picture)] = len(distinct)
                distinct.append(picture)
        image = self.encode_images(distinct)
        image_of = [places[id(picture)] for picture in images]
        questions = self.questions(image, prompts, max_length=max_length, image_of=image_of)
        return [self.read(ids) for ids in self.generate(questions, sampling or Sampling())]

    def questions(
        self,
        image: ImageTokens,
        prompts: Sequence[str],
        *,
        max_length: int,
        image_of: Sequence[int] | None = None,
        samples: int = 1,
        begin_masks: bool = False,
    ) -> Questions:
        """Prompts about encoded images. image_of: of each prompt; None: prompt and image at the same place.

        begin_masks: the prompt ends in the mask start, so that a mask is the answer.
        """
        start = [self.vocabulary.start] if begin_masks else []
        return Questions(
            image=image,
            prefixes=self.prefixes(image),
            image_of=range(len(prompts)) if image_of is None else image_of,
            prompts=[[*self.template.question_ids(self.tokenizer, prompt), *start] for prompt in prompts],
            max_lengths=[max_length] * len(prompts),
            samples=samples,
        )

    def generate(self, questions: Questions, sampling: Sampling) -> list[list[int]]:
        """Token ids of the answers, see `generation.generate`."""
        return generate(self.model, self.grammar, questions, turn_end=self.turn_end, sampling=sampling)

    def read(self, ids: Sequence[int]) -> Answer:
        """What the token ids of one answer say."""
        vocabulary = self.vocabulary
        spans = self._spans(ids)
        masks = tuple(codes for codes in spans if codes)
        hidden = {*vocabulary.codes, vocabulary.start, vocabulary.end, self.turn_end}
        text = self.tokenizer.decode([token for token in ids if token not in hidden])
        ended = bool(ids) and ids[-1] == self.turn_end
        no_target = ended and not spans and is_no_target(text)
        well_formed = bool(masks) and len(masks) == len(spans)
        return Answer(
            text=text,
            masks=masks,
            no_target=no_target,
            malformed=not ended or not (well_formed or no_target),
        )

    def _spans(self, ids: Sequence[int]) -> list[tuple[int, ...]]:
        """The codes of every mask begun; () where it was not closed, or holds none, or something else."""
        vocabulary = self.vocabulary
        starts = [place for place, token in enumerate(ids) if token == vocabulary.start]
        spans = []
        for first, stop in pairwise([*starts, len(ids)]):
            inside = list(takewhile(lambda token: token != vocabulary.end, ids[first + 1 : stop]))
            closed = first + 1 + len(inside) < stop
            codes = tuple(self._code_of[token] for token in inside if token in self._code_of)
            spans.append(codes if closed and len(codes) == len(inside) else ())
        return spans
