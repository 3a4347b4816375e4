"""What an answer is worth in GRPO: overlap at the original resolution, well-formedness, brevity."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from alto_models.altollm.answering import Answer
from alto_models.metrics import Overlap


class RewardWeights(BaseModel):
    """reward = IoU + well_formed x (is it) + length x (max_length - codes), the last with adaptive prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    well_formed: float = Field(default=0.1, ge=0, description="for an answer that can be decoded")
    length: float = Field(default=1e-3, ge=0, description="for each code less than the most there may be")


class Reward(NamedTuple):
    """iou: 0..1; the other two already weighted."""

    iou: float
    well_formed: float
    length: float

    @property
    def total(self) -> float:
        return self.iou + self.well_formed + self.length


def reward(
    answer: Answer, overlap: Overlap, max_length: int, weights: RewardWeights, *, adaptive: bool
) -> Reward:
    """Reward of one answer.

    overlap: of its mask with the target, both at the image's own size. Where there is no target, saying so has
    IoU 1 and is the briefest answer, and a mask earns nothing for brevity: else brevity would reward masks of what
    is not there, and the model unlearn to refuse. A malformed answer earns nothing.
    adaptive: the prompt asked for an adaptive length; otherwise a mask is well formed with `max_length` codes only,
    or brevity learned from adaptive prompts would spread to the others.
    """
    if answer.malformed:
        return Reward(0.0, 0.0, 0.0)
    well_formed = adaptive or not answer.codes or answer.length == max_length
    brief = adaptive and bool(answer.codes) == bool(overlap.target_area)
    return Reward(
        iou=overlap.iou,
        well_formed=weights.well_formed if well_formed else 0.0,
        length=weights.length * (max_length - answer.length) if brief else 0.0,
    )
