"""Supervised fine-tuning: ALToLLM learns to answer with mask tokens.

The base model gets the mask vocabulary, then trains on referring records whose masks were turned into codes
once, by `mask_tokens`; several records of an image share one sequence and the image's encoding. The result is
measured on the `val` split, beside the starting point.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.boxes import box_words
from alto_models.altollm.checkpoint import load_llm
from alto_models.altollm.conversation import (
    MASK_ANSWER,
    NO_TARGET_ANSWER,
    REQUESTS,
    Signals,
    segment_prompt,
)
from alto_models.altollm.evaluation import HeldOut, evaluate, spread
from alto_models.altollm.examples import join_examples, read_mask_codes, refuse_signals
from alto_models.altollm.mask_loss import MaskLoss
from alto_models.altollm.network import ImageTokensError, NetworkConfig, build_network, grow_vocabulary
from alto_models.altollm.optimizer import OptimizerName, build_optimizer
from alto_models.altollm.parts import PARTS, Part, checkpoint_gradients, freeze
from alto_models.altollm.supervised import SupervisedLoss
from alto_models.altollm.vocabulary import build_word_tokenizer
from alto_models.data.referring import ReferringImages
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer
from alto_models.training.loop import StepResult
from alto_models.training.precision import own_device
from alto_models.training.processes import mean_over_processes, own_passes
from data_contracts.errors import InputError
from jobs.altollm_batches import BatchConfig, SupervisedBatch, SupervisedBatches
from jobs.altollm_pictures import save_curves, save_samples
from jobs.altollm_progress import Progress
from jobs.altollm_training import TrainingConfig, TrainingSettings, run_training, start_training
from jobs.runner.context import Check, StageContext, StageReport
from jobs.training_curves import save_curve_table


class FineTuningSettings(TrainingSettings):
    """
    images_per_pass: images of one forward pass in one process, null for its whole share of a step; gradients
        of the passes are averaged.
    """

    images_per_pass: int | None = Field(gt=0)


class Config(BatchConfig, TrainingConfig):
    training: FineTuningSettings = Field(description="how a step is computed")
    max_tiles: int = Field(
        gt=0,
        description="an image is cut into, at most, beside the whole image; 1: one square, padded. Kept with the model",
    )
    frozen: frozenset[Part] = Field(description="parts that stay as they are")
    gradient_checkpointing: bool = Field(description="less memory for a third more time")
    sample_every: int = Field(gt=0, description="steps between answers to the same few val questions")
    optimizer: OptimizerName = Field(description="muon cannot be combined with training.deepspeed")
    evaluated_images: int = Field(gt=0, description="of the val split, at most")
    max_malformed_share: float = Field(ge=0, le=1, description="of answers, for training_health")
    network: NetworkConfig = Field(description="sizes where base_weights holds no language model")

    @field_validator("frozen")
    @classmethod
    def _something_learns(cls, frozen: frozenset[Part]) -> frozenset[Part]:
        if frozen == set(PARTS):
            raise ValueError("all parts are frozen: nothing is left to train")
        return frozen

    @model_validator(mode="after")
    def _optimizer_can_be_shared_out(self) -> Self:
        if self.training.deepspeed is not None and self.optimizer == "muon":
            raise ValueError(
                "DeepSpeed shares out flattened weights and muon needs whole matrices: set optimizer to adamw"
            )
        return self


def run(config: Config, context: StageContext) -> StageReport:
    torch.manual_seed(context.seed)
    device = own_device()
    mask_tokenizer = load_tokenizer(context.inputs["tokenizer_stage1_5"]).to(device)
    images = ReferringImages(context.inputs["prepare_referring"], "train")
    llm = start(config, context.inputs["base_weights"], images, mask_tokenizer.config.codebook_size)
    llm.to(device)
    llm.max_tiles = config.max_tiles
    codes = read_mask_codes(context.inputs["mask_tokens"])
    signals = Signals(llm.tokenizer)
    examples = join_examples(images, codes, llm.vocabulary, signals)
    batches = SupervisedBatches(config, llm, images, examples, context.seed)
    val = ReferringImages(context.inputs["prepare_referring"], "val")
    refuse_signals(val, signals)
    held_out = HeldOut.of(spread(val, config.evaluated_images))
    before = evaluate(llm, mask_tokenizer, held_out, adaptive=False)

    progress = Progress(context, llm, mask_tokenizer, held_out, config.sample_every)
    train(config, context, llm, mask_tokenizer, batches, progress)

    full = evaluate(llm, mask_tokenizer, held_out, adaptive=False)
    adaptive = evaluate(llm, mask_tokenizer, held_out, adaptive=True)
    llm.save(context.output)
    save_curve_table(context)
    save_curves(context)
    save_samples(context, held_out, adaptive)
    progress.save_picture()
    figures = before.figures("start") | full.figures("full") | adaptive.figures("adaptive")
    return StageReport(
        figures={
            **figures,
            "train_images": len(examples),
            "train_records": sum(len(image.examples) for image in examples),
            "val_questions": len(held_out.questions),
        },
        checks=(training_health(context, figures["full_malformed"], config.max_malformed_share),),
    )


def start(config: Config, base: Path, images: ReferringImages, codebook_size: int) -> AltoLLM:
    """The base model with fresh mask tokens; a new small one where there are no base weights."""
    if (base / "altollm").is_dir():
        model, tokenizer = load_llm(base / "altollm")
    else:
        tokenizer = build_word_tokenizer(_words(images))
        model = build_network(config.network, tokenizer)
    grow_vocabulary(model, tokenizer, codebook_size)
    return AltoLLM(model, tokenizer)


def train(
    config: Config,
    context: StageContext,
    llm: AltoLLM,
    mask_tokenizer: MaskTokenizer,
    batches: SupervisedBatches,
    progress: Progress,
) -> None:
    """Train `llm` in place, from the last checkpoint in `context.work` on."""
    freeze(llm.model, config.frozen)
    checkpoint_gradients(llm.model, config.gradient_checkpointing)
    mask_loss = MaskLoss(mask_tokenizer, llm.vocabulary, config.mask_loss)
    objective = SupervisedLoss(llm.model, mask_loss)

    def draw(step: int, passes: Sequence[range]) -> Iterator[tuple[SupervisedBatch, float]]:
        """Batches, each with its share of the step's loss: 1 on average, by the weight of its learned tokens."""
        own = [batches.at(step, places) for places in passes]
        weights = mean_over_processes(torch.stack([batch.packed.weights.sum() for batch in own]))
        return zip(own, (weights / weights.mean()).tolist(), strict=True)

    def forward(drawn: tuple[SupervisedBatch, float]) -> StepResult:
        batch, share = drawn
        figures = score(objective, batch)
        loss = figures.pop("loss")
        figures["left_out"] = torch.full_like(loss.detach(), batch.left_out)
        return StepResult(loss=loss * share, samples=batch.samples, figures=figures)

    llm.model.train()
    training = start_training(
        config,
        config.training,
        context,
        llm.model,
        build_optimizer(llm.model, config.weight_decay, name=config.optimizer),
        places=own_passes(
            config.images_per_step,
            config.training.images_per_pass,
            "images_per_step or training.images_per_pass",
        ),
        draw=draw,
        forward=forward,
        log_every=20,
        watch=progress.at,
    )
    run_training(training, context, "Fine-tuning")
    checkpoint_gradients(llm.model, wanted=False)
    llm.model.eval()


def score(objective: SupervisedLoss, batch: SupervisedBatch) -> dict[str, Tensor]:
    """Raises InputError naming the sample whose image has another number of tokens than its sequence."""
    try:
        return objective(batch.pixels, batch.packed, batch.targets, batch.tiles)
    except ImageTokensError as error:
        raise InputError(f"{batch.samples[error.row]}: {error}") from error


def training_health(context: StageContext, malformed: float, most: float) -> Check:
    losses = [point.values["loss"] for point in context.metric_log.read() if "loss" in point.values]
    fell = len(losses) < 2 or losses[-1] < losses[0]
    return Check(
        name="training_health",
        passed=fell and malformed <= most,
        reason=f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, malformed answers {malformed:.1%} (at most {most:.1%})",
        blocking=True,
    )


def _words(images: ReferringImages) -> set[str]:
    texts = [segment_prompt("", adaptive=True, request=request) for request in REQUESTS]
    texts += [MASK_ANSWER, NO_TARGET_ANSWER]
    texts += [
        text
        for index in range(len(images))
        for record in images.records(index)
        for text in record.expressions
    ]
    plain = " ".join(texts).replace("<ref></ref>", " ").replace(".", " ").replace("?", " ")
    return {*box_words(), *(word for word in plain.split() if word.isalpha())}


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("altollm_sft")
