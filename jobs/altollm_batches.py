"""What each step of supervised fine-tuning learns from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from torch import Tensor

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.examples import BranchMaker, ExampleImage, draw_branches
from alto_models.altollm.packing import PackedBatch, pack
from alto_models.altollm.processor import normalise
from alto_models.altollm.vocabulary import padding_id
from jobs.altollm_sampling import batch_of
from jobs.runner.context import JobConfig


class BatchConfig(JobConfig):
    """Sizes are per optimizer step."""

    images_per_step: int = Field(gt=0)
    records_per_image: int = Field(gt=0, description="packed into one sequence, at most")
    code_half_life: float | None = Field(
        gt=0, description="codes after which their weight in the loss has halved; null: all weigh the same"
    )
    box_first: bool = Field(description="answers name the boxes of the objects before the mask")
    no_target_weight: float = Field(
        gt=0, description="in the loss, of the first token of an answer that says there is no such object"
    )
    adaptive_share: float = Field(ge=0, le=1, description="of prompts that ask for an adaptive length")


@dataclass(frozen=True, kw_only=True)
class SupervisedBatch:
    """samples: a name a sequence. pixels: (B, 3, S, S), normalised."""

    samples: Sequence[str]
    pixels: Tensor
    packed: PackedBatch


class SupervisedBatches:
    """The batch of a step depends on seed and step only; each sequence on its place in the step as well."""

    def __init__(
        self, config: BatchConfig, llm: AltoLLM, examples: Sequence[ExampleImage], seed: int
    ) -> None:
        self._config = config
        self._examples = examples
        self._seed = seed
        self._prefix = llm.prefix
        self._padding = padding_id(llm.tokenizer)
        self._maker = BranchMaker(
            llm.tokenizer,
            llm.vocabulary,
            llm.template,
            code_half_life=config.code_half_life,
            box_first=config.box_first,
            no_target_weight=config.no_target_weight,
        )

    def at(self, step: int, places: range) -> SupervisedBatch:
        """The sequences at `places` of the step's `images_per_step`."""
        config = self._config
        indices = batch_of(step, config.images_per_step, len(self._examples), self._seed)
        chosen = [self._examples[indices[place]] for place in places]
        branches = [
            draw_branches(
                image,
                self._maker,
                np.random.default_rng([self._seed, step, place]),
                most=config.records_per_image,
                adaptive_share=config.adaptive_share,
            )
            for image, place in zip(chosen, places, strict=True)
        ]
        return SupervisedBatch(
            samples=[image.image_id for image in chosen],
            pixels=normalise(np.stack([image.thumbnail for image in chosen])),
            packed=pack([self._prefix] * len(chosen), branches, self._padding),
        )
