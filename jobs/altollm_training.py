"""How the stages of ALToLLM compute a training step: settings they share, and the run itself."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.optim import Optimizer

from alto_models.training.loop import StepResult, Training
from alto_models.training.precision import Precision
from alto_models.training.schedule import LearningRate
from jobs.runner.context import JobConfig, StageContext

PassT = TypeVar("PassT")

DEEPSPEED_FOLDER = Path("infra/deepspeed")  # of the project, where every job runs


class TrainingSettings(BaseModel):
    """
    precision: of matrix products.
    deepspeed: share out optimizer state (zero1), gradients (zero2) and weights (zero3) over the processes, as
        infra/deepspeed/<name>.json says; null: all of them whole in every process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision
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
    """What every stage says about its training; `training` is a TrainingSettings in each."""

    steps: int = Field(gt=0, description="optimizer steps")
    learning_rate: LearningRate = Field(description="rises to its peak, then falls along a cosine")
    weight_decay: float = Field(ge=0, description="of the optimizer")
    save_every: int = Field(gt=0, description="steps between checkpoints to resume from")


def start_training(
    config: TrainingConfig,
    settings: TrainingSettings,
    context: StageContext,
    model: nn.Module,
    optimizer: Optimizer,
    places: list[range],
    draw: Callable[[int, list[range]], Iterable[PassT]],
    forward: Callable[[PassT], StepResult],
    log_every: int,
    watch: Callable[[int, int], Mapping[str, float]] = lambda step, since: {},
    resumable_every: int = 1,
) -> Training:
    """Training of `model` in place, as `run_training` goes through with it.

    places: in a step's batch, those that each forward pass of this process takes.
    draw: step and places -> what each pass needs; called before the passes of a step, see `Training.prepare`.
    forward: what the pass needs -> its loss; the mean over all passes of all processes is minimised.
    watch: steps done, and those since the last point of the curves -> more figures for the point.
    resumable_every: as in Training.
    """
    log_every = max(1, min(log_every, config.steps // 4))
    upcoming: list[PassT] = []
    return Training(
        model=model,
        optimizer=optimizer,
        learning_rate=config.learning_rate,
        total_steps=config.steps,
        prepare=lambda step: upcoming.extend(draw(step, places)),
        forward=lambda step: forward(upcoming.pop(0)),
        folder=context.work,
        save_every=config.save_every,
        log=lambda step, figures: context.log_metrics(step, **figures, **watch(step, log_every)),
        log_every=log_every,
        passes=len(places),
        precision=settings.precision,
        deepspeed=settings.deepspeed_settings,
        stop=context.stop,
        resumable_every=resumable_every,
    )


def run_training(training: Training, context: StageContext, title: str) -> None:
    """Train from the last checkpoint in `context.work` on, to the end."""
    first = training.restore()
    with context.stop.deferred(), context.progress(training.total_steps, title, "step", initial=first) as bar:
        training.run(first, bar)
