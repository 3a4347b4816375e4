"""What a GRPO run is told."""

from typing import Self

from pydantic import Field, model_validator

from alto_models.altollm.grpo import Variant
from alto_models.altollm.rewards import RewardWeights
from jobs.altollm_training import TrainingConfig, TrainingSettings


class GrpoTrainingSettings(TrainingSettings):
    """
    prompts_per_pass: prompts whose answers are scored in one forward pass of one process, null for its whole share
        of a step; gradients of the passes are averaged. Answers are sampled for the whole share at once.
    """

    prompts_per_pass: int | None = Field(gt=0)


class GrpoConfig(TrainingConfig):
    """A rollout (answers sampled, rewarded) serves `updates_per_rollout` optimizer steps, each with all of it."""

    prompts_per_step: int = Field(gt=0, description="prompts of a rollout, over all processes")
    group_size: int = Field(gt=1, description="answers sampled for each prompt")
    updates_per_rollout: int = Field(
        gt=0, description="optimizer steps with the same answers; from the second on, the ratio is clipped"
    )
    adaptive_share: float = Field(
        ge=0, le=1, description="of prompts that ask for an adaptive length; only there brevity is rewarded"
    )
    no_target_weight: float = Field(
        gt=0,
        description="how much more often than others of its image a record without a target is asked for",
    )
    temperature: float = Field(gt=0, description="of sampling")
    top_k: int | None = Field(gt=0, description="most probable tokens that are sampled from; null: all")
    variant: Variant = Field(
        description="dr_grpo divides neither by the group's spread nor by an answer's length"
    )
    reward: RewardWeights = Field(description="weights beside the IoU, which counts 1")
    kl_weight: float = Field(ge=0, description="0: no reference model")
    clip: float = Field(gt=0, lt=1, description="the ratio of new to old probability stays within 1 +- clip")
    training: GrpoTrainingSettings = Field(description="how a step is computed")
    gradient_checkpointing: bool = Field(description="less memory for a third more time")
    evaluated_images: int = Field(gt=0, description="of the val split, at most")
    max_malformed_share: float = Field(ge=0, le=1, description="of answers, for training_health")

    @model_validator(mode="after")
    def _saves_between_rollouts(self) -> Self:
        if self.save_every % self.updates_per_rollout:
            raise ValueError(
                f"save_every ({self.save_every}) must be a multiple of updates_per_rollout "
                f"({self.updates_per_rollout}): a checkpoint holds no answers, only the weights that sample them"
            )
        return self
