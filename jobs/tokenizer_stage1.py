"""Trains the mask tokenizer at random kept lengths (stage 1): all of it but the length predictor.

Result: a checkpoint folder. Its length predictor is as initialised; stage 1.5 trains it.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from alto_models.checkpoint import save_checkpoint
from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.evaluation import View, evaluate
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.optimizer import build_optimizer
from alto_models.tokenizer.prefixes import spread_lengths
from alto_models.tokenizer.stage1 import BatchTensors, Stage1, Stage1Settings, settle_statistics
from alto_models.tokenizer.starting_weights import load_starting_weights
from alto_models.training.loop import StepResult
from alto_models.training.precision import own_device
from alto_models.training.processes import own_share
from jobs.runner.command_line import run_from_command_line
from jobs.runner.context import StageContext, StageReport
from jobs.tokenizer_training.data import TrainingBatches, read_held_out
from jobs.tokenizer_training.pictures import save_curves, save_strips
from jobs.tokenizer_training.report import (
    beats_baselines,
    constant_baselines,
    quality_figures,
    training_health,
)
from jobs.tokenizer_training.training import TrainingConfig, train
from jobs.training_curves import save_curve_table

CURVES = ("loss", "dice", "bce", "quantizer", "codebook_usage", "gradient_norm")
SHOWN_LENGTHS = 5
STATISTICS_BATCHES = 100
STRIPS = 8


class Config(TrainingConfig):
    tokenizer: TokenizerConfig = Field(description="sizes of the network")
    initial_weights: Literal["none", "base"] = Field(description="base: start from base_weights/tokenizer")
    weight_decay: float = Field(ge=0, description="of the optimizer")
    objective: Stage1Settings = Field(description="phases and weights of the losses")

    @model_validator(mode="after")
    def _latents_can_be_normalised_over_masks(self) -> Self:
        crops = self.training.crops_per_pass or self.crops.crops_per_step
        if crops * self.crops.masks_per_crop < 2:
            raise ValueError("a forward pass needs at least 2 masks (crops * masks_per_crop)")
        return self


def run(config: Config, context: StageContext) -> StageReport:
    torch.manual_seed(context.seed)
    batches = TrainingBatches(config.crops, config.tokenizer, context, config.training.crops_per_pass)
    views = read_held_out(config.crops, config.tokenizer, context, config.evaluated_images)
    lengths = spread_lengths(config.tokenizer.max_length, SHOWN_LENGTHS).tolist()
    model = start(config, context).to(own_device())
    untrained = evaluate(model.eval(), views, lengths).mean_iou(length=lengths[-1])

    learn(config, context, model.train(), batches)
    settle_statistics(model, batches.own_passes(0, STATISTICS_BATCHES))

    scores = evaluate(model, views, lengths)
    save_checkpoint(context.output, config.tokenizer, model.state_dict())
    save_curve_table(context)
    _save_pictures(context, model, views, lengths)
    figures = quality_figures(scores, config.tokenizer.codebook_size)
    baselines = constant_baselines(batches, config.tokenizer, views) | {"starting_point": untrained}
    return StageReport(
        figures={**figures, "steps": config.steps, "masks_evaluated": len(scores.kinds)},
        checks=(
            training_health(context.metric_log, "dice", float(figures["codebook_usage"]), config.health),
            beats_baselines(float(figures["iou"]), baselines),
        ),
    )


def start(config: Config, context: StageContext) -> MaskTokenizer:
    """A new network, filled with what `base_weights/tokenizer` holds where that is asked for."""
    model = MaskTokenizer(config.tokenizer)
    if config.initial_weights == "base":
        folder = context.inputs["base_weights"] / "tokenizer"
        load_starting_weights(model, folder)
    return model


def learn(config: Config, context: StageContext, model: MaskTokenizer, batches: TrainingBatches) -> None:
    """Train `model` in place, from the last checkpoint in `context.work` on."""
    stage = Stage1(model, config.objective, config.steps, context.seed)

    def forward(step: int, batch: BatchTensors) -> StepResult:
        if step == stage.quantizer_starts_at() and batch.crops.start == first_crop:
            ahead = range(step, step + config.objective.codebook_batches)
            stage.fit_codebook([batches.at(later) for later in ahead])
        return stage.forward(step, batch)

    first_crop = own_share(config.crops.crops_per_step).start
    optimizer = build_optimizer(model, config.weight_decay)
    train(config, context, model, optimizer, batches, forward, "Training stage 1")


def _save_pictures(
    context: StageContext, model: MaskTokenizer, views: list[View], lengths: list[int]
) -> None:
    folder = context.output / "pictures"
    folder.mkdir()
    save_curves(context.metric_log.read(), CURVES, folder / "curves.png")
    save_strips(model, views[:STRIPS], lengths, folder / "samples.png")


if __name__ == "__main__":
    run_from_command_line("tokenizer_stage1")
