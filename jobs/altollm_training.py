"""How the stages of ALToLLM compute a training step: settings they share, and the run itself."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.optim import Optimizer

from alto_models.training.loop import StepResult, Training
from alto_models.training.precision import Precision
from alto_models.training.processes import own_passes
from alto_models.training.schedule import LearningRate
from jobs.runner.context import JobConfig, StageContext

PassT = TypeVar("PassT")

DEEPSPEED_FOLDER = Path("infra/deepspeed")  # of the project, where every job runs


class TrainingSettings(BaseModel):
    """
    precision: of matrix products.
    images_per_pass: images of one forward pass in one process, null for its whole share of a step; gradients
        of the passes are averaged.
    deepspeed: share out optimizer state (zero1), gradients (zero2) and weights (zero3) over the processes, as
        infra/deepspeed/<name>.json says; null: all of them whole in every process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision
    images_per_pass: int | None = Field(gt=0)
    deepspeed: Literal["zero1", "zero2", "zero3"] | None

    @model_validator(mode="after")
    def _precision_fits(self) -> Self:
        if self.deepspeed is not None and self.precision == "fp16":
            raise ValueError("with deepspeed, precision is fp32 or bf16")
        return self

    @property
    def deepspeed_settings(self) -> Path | None:
        return None if self.deepspeed is None else DEEPSPEED_FOLDER / f"{self.deepspeed}.json"


class TrainingConfig(JobConfig):
    steps: int = Field(gt=0)
    learning_rate: LearningRate
    weight_decay: float = Field(ge=0)
    training: TrainingSettings = Field(description="how a step is computed")
    save_every: int = Field(gt=0, description="steps between checkpoints to resume from")


def train(
    config: TrainingConfig,
    context: StageContext,
    model: nn.Module,
    optimizer: Optimizer,
    images_per_step: int,
    draw: Callable[[int, list[range]], Iterable[PassT]],
    forward: Callable[[int, PassT], StepResult],
    title: str,
    log_every: int,
    watch: Callable[[int, int], Mapping[str, float]] = lambda step, since: {},
) -> None:
    """Train `model` in place, from the last checkpoint in `context.work` on.

    draw: step, and the places in its batch that each forward pass of this process takes -> what each pass needs.
    forward: step and what the pass needs -> its loss; the mean over all passes of all processes is minimised.
    watch: steps done, and those since the last point of the curves -> more figures for the point.
    """
    log_every = max(1, min(log_every, config.steps // 4))
    places = own_passes(
        images_per_step, config.training.images_per_pass, "images_per_step or training.images_per_pass"
    )
    training = Training(
        model=model,
        optimizer=optimizer,
        learning_rate=config.learning_rate,
        total_steps=config.steps,
        forward=lambda step: forward(step, next(upcoming)),
        folder=context.work,
        save_every=config.save_every,
        log=lambda step, figures: context.log_metrics(step, **figures, **watch(step, log_every)),
        log_every=log_every,
        passes=len(places),
        precision=config.training.precision,
        deepspeed=config.training.deepspeed_settings,
    )
    first = training.restore()
    upcoming = (one for step in range(first, config.steps) for one in draw(step, places))
    with context.progress(config.steps, title, "step", initial=first) as bar:
        training.run(first, bar)
