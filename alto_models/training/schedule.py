"""Learning rate: linear warm-up, then half a cosine, both in optimizer steps."""

import math

from pydantic import BaseModel, ConfigDict, Field
from torch.optim import Optimizer


class LearningRate(BaseModel):
    """Peak reached after `warmup_steps`, then a cosine down to `final` at the last step.

    `final == peak` gives a constant rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    peak: float = Field(gt=0, description="the highest rate")
    final: float = Field(ge=0, description="rate at the last step")
    warmup_steps: int = Field(ge=0, description="steps until the peak")

    def at(self, step: int, total_steps: int) -> float:
        """Rate of step `step`, counted from 0; never 0 in the first step."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        decay_steps = max(total_steps - self.warmup_steps, 1)
        progress = min((step - self.warmup_steps) / decay_steps, 1.0)
        return self.final + (self.peak - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every parameter group `rate`, times its own `rate_scale` where the group has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_scale", 1.0)
