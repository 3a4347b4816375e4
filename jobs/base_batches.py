"""Packed sequences of the questions of a batch of scenes."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alto_models.altollm.conversation import Template
from alto_models.altollm.packing import Branch, PackedBatch, pack
from alto_models.altollm.vocabulary import PADDING, token_id
from jobs.base_questions import turns
from jobs.base_scenes import ScenePool

CAPTION_SHARE = 0.25  # of batches: with long and short rows in one batch, most would be padding


class BaseBatches:
    """Turns scenes of a pool into packed sequences. `locate`: places asked for in one scene."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int, locate: int) -> None:
        self.tokenizer = tokenizer
        self.locate = locate
        self.template = Template()
        self.prefix = self.template.image_ids(tokenizer, image_tokens)
        self.padding = token_id(tokenizer, PADDING)
        self.question_ids = lru_cache(200_000)(lambda text: self.template.question_ids(tokenizer, text))
        self.answer_ids = lru_cache(200_000)(lambda text: self.template.answer_ids(tokenizer, text))

    def branch(self, question: str, answer: str) -> Branch:
        prompt = self.question_ids(question)
        return Branch(ids=[*prompt, *self.answer_ids(answer)], prompt_length=len(prompt))

    def batch(self, pool: ScenePool, scenes: NDArray[np.int64], rng: np.random.Generator) -> PackedBatch:
        caption = bool(rng.random() < CAPTION_SHARE)
        branches = [
            [
                self.branch(*turn)
                for turn in turns(pool.notes[scene], rng, locate=self.locate, caption=caption)
            ]
            for scene in scenes
        ]
        return pack([self.prefix] * len(scenes), branches, self.padding)
