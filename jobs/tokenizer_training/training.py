"""How both stages of the tokenizer train: settings they share, and the run itself."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field
from torch.optim import Optimizer

from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.stage1 import BatchTensors
from alto_models.training.loop import StepResult, Training
from alto_models.training.precision import Precision
from alto_models.training.schedule import LearningRate
from jobs.runner.context import JobConfig, StageContext
from jobs.tokenizer_training.data import CropsConfig, TrainingBatches
from jobs.tokenizer_training.report import HealthLimits


class TrainingSettings(BaseModel):
    """
    precision: of matrix products.
    crops_per_pass: crops of one forward pass in one process, null for its whole share of a step; gradients
        of the passes are averaged. Features are normalised over the masks of a pass.
    ema_decay: decay of the moving average that the weights end as; null for the last weights.
    compile: compile encoder and de-tokenizer; minutes at the start for faster steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision
    crops_per_pass: int | None = Field(gt=0)
    ema_decay: float | None = Field(gt=0, lt=1)
    compile: bool


class TrainingConfig(JobConfig):
    """Lengths of training are in steps of `crops.crops_per_step` * `crops.masks_per_crop` masks."""

    crops: CropsConfig = Field(description="how crops and their masks are drawn")
    steps: int = Field(gt=0, description="optimizer steps")
    learning_rate: LearningRate = Field(description="rises to its peak, then falls along a cosine")
    training: TrainingSettings = Field(description="how a step is computed")
    save_every: int = Field(gt=0, description="steps between checkpoints to resume from")
    evaluated_images: int = Field(gt=0, description="of the held-out split, at most")
    health: HealthLimits = Field(description="limits of the check training_health")


def train(
    config: TrainingConfig,
    context: StageContext,
    model: MaskTokenizer,
    optimizer: Optimizer,
    batches: TrainingBatches,
    forward: Callable[[int, BatchTensors], StepResult],
    title: str,
) -> None:
    """Train `model` in place, from the last checkpoint in `context.work` on; `forward` takes step and batch."""
    if config.training.compile:
        model.encoder.compile()
        model.detokenizer.compile()
    training = Training(
        model=model,
        optimizer=optimizer,
        learning_rate=config.learning_rate,
        total_steps=config.steps,
        forward=lambda step: forward(step, next(upcoming)),
        folder=context.work,
        save_every=config.save_every,
        log=lambda step, figures: context.log_metrics(step, **figures),
        passes=batches.passes,
        precision=config.training.precision,
        ema_decay=config.training.ema_decay,
        stop=context.stop,
    )
    first = training.restore()
    upcoming = batches.own_passes(first, config.steps)
    with context.stop.deferred(), context.progress(config.steps, title, "step", initial=first) as bar:
        training.run(first, bar)
