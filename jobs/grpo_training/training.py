"""A GRPO run: its optimizer steps, and what they changed on the val split."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import torch

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.evaluation import Evaluation, HeldOut, evaluate, spread
from alto_models.altollm.grpo import grpo_loss, kl_estimate
from alto_models.altollm.parts import checkpoint_gradients, freeze
from alto_models.altollm.reference import ReferenceWeights, language_parameters
from alto_models.altollm.scoring import AnswerLogProbs, answer_log_probs
from alto_models.altollm.vocabulary import padding_id
from alto_models.data.referring import ReferringImages
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer
from alto_models.training.loop import StepResult
from alto_models.training.precision import autocast, own_device
from alto_models.training.processes import own_passes
from jobs.altollm_training import run_training, start_training
from jobs.grpo_training.rollouts import Rollout, RolloutMaker
from jobs.grpo_training.settings import GrpoConfig
from jobs.runner.context import Check, StageContext, StageReport


@dataclass(frozen=True, kw_only=True)
class GrpoRun:
    """A finished run: the model, its last evaluation, and the report of both."""

    llm: AltoLLM
    held_out: HeldOut
    after: Evaluation
    report: StageReport


def run_grpo(config: GrpoConfig, context: StageContext) -> GrpoRun:
    """From the checkpoint of `altollm_sft`, or where a killed run with the same inputs stopped."""
    torch.manual_seed(context.seed)
    device = own_device()
    mask_tokenizer = load_tokenizer(context.inputs["tokenizer_stage1_5"]).to(device)
    llm = AltoLLM.load(context.inputs["altollm_sft"]).to(device)
    val = ReferringImages(context.inputs["prepare_referring"], "val")
    held_out = HeldOut.of(spread(val, config.evaluated_images))
    before = evaluate(llm, mask_tokenizer, held_out, adaptive=True).figures("before")

    Optimisation(config, context, llm, mask_tokenizer).run()

    after = evaluate(llm, mask_tokenizer, held_out, adaptive=True)
    figures = before | after.figures("after")
    report = StageReport(
        figures={
            **figures,
            "mean_length_change": round(_relative(figures, "mean_length"), 4),
            "giou_change": round(figures["after_giou"] - figures["before_giou"], 4),
            "val_questions": len(held_out.questions),
        },
        checks=(training_health(context, figures["after_malformed"], config.max_malformed_share),),
    )
    return GrpoRun(llm=llm, held_out=held_out, after=after, report=report)


class Optimisation:
    """The training run. Only the language model moves: the vision tower and its projection stay as they are."""

    def __init__(
        self, config: GrpoConfig, context: StageContext, llm: AltoLLM, mask_tokenizer: MaskTokenizer
    ) -> None:
        self.config = config
        self.context = context
        self.llm = llm
        self.mask_tokenizer = mask_tokenizer
        self.padding = padding_id(llm.tokenizer)
        images = ReferringImages(context.inputs["prepare_referring"], "train")
        self.maker = RolloutMaker(config, context.seed, llm, mask_tokenizer, images)
        self.rollouts: list[Rollout] = []
        freeze(llm.model, ("vision_tower", "projector"))
        checkpoint_gradients(llm.model, config.gradient_checkpointing)
        self.trained = language_parameters(llm.model)
        self.training = start_training(
            config,
            config.training,
            context,
            llm.model,
            torch.optim.AdamW(
                self.trained, config.learning_rate.peak, betas=(0.9, 0.95), weight_decay=config.weight_decay
            ),
            places=own_passes(
                config.prompts_per_step,
                config.training.prompts_per_pass,
                "prompts_per_step or training.prompts_per_pass",
            ),
            draw=self.draw,
            forward=self.forward,
            log_every=5,
            resumable_every=config.updates_per_rollout,
        )
        # Of the weights GRPO begins with, so before those of a checkpoint to resume from are there.
        self.reference = ReferenceWeights(llm.model, self.training.stored) if config.kl_weight else None

    def run(self) -> None:
        run_training(self.training, self.context, "GRPO")
        checkpoint_gradients(self.llm.model, wanted=False)
        self.llm.model.eval()

    def draw(self, step: int, places: list[range]) -> list[Rollout]:
        """The rollout that is due, in its passes.

        Made at its first update; training checkpoints lie between rollouts, so a resumed run makes it, too.
        """
        index, update = divmod(step, self.config.updates_per_rollout)
        if update == 0:
            self.llm.model.eval()
            self.rollouts = self._make(index, places)
            self.llm.model.train(self.config.gradient_checkpointing)
        if not self.rollouts:
            raise ValueError(f"step {step} needs a rollout made before the run began")
        return self.rollouts

    def _make(self, index: int, places: list[range]) -> list[Rollout]:
        with self.training.whole_weights():
            rollout = self.maker.make(index, range(places[0].start, places[-1].stop))
        passes = rollout.split(len(places))
        if self.reference is not None:
            precision = autocast(self.config.training.precision, self.llm.model.device)
            with self.reference.in_place(), self.training.whole_weights(), precision:
                for one in passes:
                    one.reference_log_probs = self._log_probs(one).log_probs
        return passes

    def forward(self, rollout: Rollout) -> StepResult:
        """The loss of one update with a pass of the rollout."""
        config = self.config
        policy = self._log_probs(rollout)
        if rollout.old_log_probs is None:
            rollout.old_log_probs = policy.log_probs.detach()
        loss = grpo_loss(
            policy.log_probs,
            rollout.advantages,
            policy.counted,
            old_log_probs_NT=rollout.old_log_probs,
            reference_log_probs_NT=rollout.reference_log_probs,
            clip=config.clip,
            kl_weight=config.kl_weight,
            variant=config.variant,
            max_tokens=self.mask_tokenizer.config.max_length,
        )
        figures = dict(rollout.figures)
        if rollout.reference_log_probs is not None:
            kl = kl_estimate(policy.log_probs.detach(), rollout.reference_log_probs)
            figures["kl"] = (kl.where(policy.counted, 0.0).sum(1) / policy.counted.sum(1)).mean()
        return StepResult(loss=loss, samples=[sample.name for sample in rollout.samples], figures=figures)

    def _log_probs(self, rollout: Rollout) -> AnswerLogProbs:
        return answer_log_probs(
            self.llm.model,
            self.llm.grammar,
            rollout.image,
            self.llm.prefixes(rollout.image),
            rollout.groups,
            max_length=self.mask_tokenizer.config.max_length,
            temperature=self.config.temperature,
            padding_id=self.padding,
        )


def _relative(figures: Mapping[str, float], name: str) -> float:
    before, after = figures[f"before_{name}"], figures[f"after_{name}"]
    return (after - before) / before if before else 0.0


def training_health(context: StageContext, malformed: float, most: float) -> Check:
    rewards = [point.values["reward"] for point in context.metric_log.read() if "reward" in point.values]
    third = max(1, len(rewards) // 3)
    first, last = fmean(rewards[:third]), fmean(rewards[-third:])
    return Check(
        name="training_health",
        passed=malformed <= most,
        reason=f"mean reward {first:.3f} in the first third of the steps, {last:.3f} in the last; "
        f"malformed answers {malformed:.1%} (at most {most:.1%})",
        blocking=True,
    )
