"""Packed sequences of the questions of a batch of scenes."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alto_models.altollm.conversation import Template
from alto_models.altollm.packing import Branch, PackedBatch, pack
from alto_models.altollm.vocabulary import BOX_START, IMAGE_CONTEXT, PADDING, token_id
from jobs.base_pretraining.questions import Turn, turns
from jobs.base_pretraining.scenes import ScenePool

CAPTION_SHARE = 0.25  # of batches: with long and short rows in one batch, most would be padding


class Pointing(NamedTuple):
    """Q questions with a target. row, position: (Q,) of the token that begins the first box of the answer.
    tokens: (Q, image tokens), share of the targets' cells that lie in each image token; sums to 1."""

    row: Tensor
    position: Tensor
    tokens: Tensor


class BaseBatches:
    """Turns scenes of a pool into packed sequences. `locate`: places asked for in one scene."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int, locate: int) -> None:
        self.tokenizer = tokenizer
        self.locate = locate
        self.tokens_a_side = round(image_tokens**0.5)
        self.template = Template()
        self.prefix = self.template.image_ids(tokenizer, image_tokens)
        self.padding = token_id(tokenizer, PADDING)
        self.image_token = token_id(tokenizer, IMAGE_CONTEXT)
        self.box_start = token_id(tokenizer, BOX_START)
        self.question_ids = lru_cache(200_000)(lambda text: self.template.question_ids(tokenizer, text))
        self.answer_ids = lru_cache(200_000)(lambda text: self.template.answer_ids(tokenizer, text))

    def branch(self, turn: Turn) -> Branch:
        prompt = self.question_ids(turn.question)
        return Branch(ids=[*prompt, *self.answer_ids(turn.answer)], prompt_length=len(prompt))

    def batch(
        self, pool: ScenePool, scenes: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[PackedBatch, Pointing]:
        caption = bool(rng.random() < CAPTION_SHARE)
        asked = [turns(pool.notes[scene], rng, locate=self.locate, caption=caption) for scene in scenes]
        branches = [[self.branch(turn) for turn in mine] for mine in asked]
        places = []
        for row, (scene, mine) in enumerate(zip(scenes, asked, strict=True)):
            end = len(self.prefix)
            for turn, branch in zip(mine, branches[row], strict=True):
                tokens = self._covered(pool.cells[scene], turn.targets)
                if tokens.any():
                    first_box = branch.ids.index(self.box_start, branch.prompt_length)
                    places.append((row, end + first_box, tokens / tokens.sum()))
                end += len(branch.ids)
        row_Q, position_Q, tokens_Q = zip(*places, strict=True)  # noqa: N806
        pointing = Pointing(
            torch.tensor(row_Q), torch.tensor(position_Q), torch.from_numpy(np.stack(tokens_Q)).float()
        )
        batch = pack(
            [self.prefix] * len(scenes), branches, padding_id=self.padding, image_token=self.image_token
        )
        return batch, pointing

    def _covered(self, cells_GG: NDArray[np.int8], targets: tuple[int, ...]) -> NDArray[np.int64]:  # noqa: N803
        """(image tokens,) number of cells of the targets in each image token."""
        side, span = self.tokens_a_side, cells_GG.shape[0] // self.tokens_a_side
        inside = np.isin(cells_GG, targets).reshape(side, span, side, span)
        return inside.sum((1, 3)).reshape(-1)
