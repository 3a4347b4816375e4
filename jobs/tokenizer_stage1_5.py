"""Trains the length predictor of the mask tokenizer (stage 1.5); the rest of the network is frozen."""

import torch
from pydantic import Field

from alto_models.checkpoint import save_checkpoint
from alto_models.tokenizer.evaluation import Scores, View, evaluate
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer
from alto_models.tokenizer.optimizer import build_optimizer
from alto_models.tokenizer.prefixes import spread_lengths
from alto_models.tokenizer.stage1_5 import PredictorSettings, PredictorTraining
from alto_models.training.precision import own_device
from jobs.runner.command_line import run_from_command_line
from jobs.runner.context import Check, StageContext, StageReport
from jobs.tokenizer_training.data import TrainingBatches, read_held_out
from jobs.tokenizer_training.pictures import save_curves, save_strips
from jobs.tokenizer_training.report import (
    adaptive_figures,
    beats_baselines,
    constant_baselines,
    quality_figures,
    training_health,
)
from jobs.tokenizer_training.training import TrainingConfig, train
from jobs.training_curves import save_curve_table

CURVES = ("loss", "expected_length", "gradient_norm")
SHOWN_LENGTHS = 6
STRIPS = 8


class Config(TrainingConfig):
    objective: PredictorSettings = Field(description="what the predictor is trained for")


def run(config: Config, context: StageContext) -> StageReport:
    torch.manual_seed(context.seed)
    model = load_tokenizer(context.inputs["tokenizer_stage1"]).to(own_device())
    batches = TrainingBatches(config.crops, model.config, context, config.training.crops_per_pass)
    views = read_held_out(config.crops, model.config, context, config.evaluated_images)
    lengths = spread_lengths(model.config.max_length, SHOWN_LENGTHS).tolist()

    stage = PredictorTraining(model, config.objective)
    optimizer = build_optimizer(model, weight_decay=0.0)
    train(config, context, model, optimizer, batches, stage.forward, "Training stage 1.5")

    scores = evaluate(model, views, lengths)
    save_checkpoint(context.output, model.config, model.state_dict())
    save_curve_table(context)
    _save_pictures(context, model, views, lengths)
    figures = quality_figures(scores, model.config.codebook_size)
    full_iou = figures.pop("iou")
    adaptive = adaptive_figures(scores)
    usage = float(figures["codebook_usage"])
    return StageReport(
        figures={"iou": adaptive["adaptive_iou"], **adaptive, "full_length_iou": full_iou, **figures}
        | {"steps": config.steps, "masks_evaluated": len(scores.kinds)},
        checks=(
            training_health(context.metric_log, "loss", usage, config.health),
            beats_baselines(scores.mean_iou(), constant_baselines(batches, model.config, views)),
            lengths_adapt(scores),
        ),
    )


def lengths_adapt(scores: Scores) -> Check:
    """Masks of one and the same length would mean that nothing was learned about lengths."""
    different = len(set(scores.predicted.tolist()))
    shortest, longest = int(scores.predicted.min()), int(scores.predicted.max())
    return Check(
        name="lengths_adapt",
        passed=different > 1,
        reason=f"{different} different lengths predicted for held-out masks, {shortest} to {longest}",
    )


def _save_pictures(
    context: StageContext, model: MaskTokenizer, views: list[View], lengths: list[int]
) -> None:
    folder = context.output / "pictures"
    folder.mkdir()
    save_curves(context.metric_log.read(), CURVES, folder / "curves.png")
    save_strips(model, views[:STRIPS], lengths, folder / "samples.png")


if __name__ == "__main__":
    run_from_command_line("tokenizer_stage1_5")
