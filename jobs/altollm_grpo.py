"""GRPO: ALToLLM learns masks that overlap more and need fewer tokens.

For each prompt a group of answers is sampled, decoded against the image at its own resolution, and rewarded;
the language model is moved towards the better ones of each group. The image is encoded once a step, the
prompt read once a group, and the masks of a group are decoded together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from alto_models import masks as mask_arithmetic
from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.conversation import segment_prompt
from alto_models.altollm.evaluation import HeldOut, evaluate, spread
from alto_models.altollm.generation import Questions, Sampling
from alto_models.altollm.grpo import Variant, advantages, grpo_loss
from alto_models.altollm.rewards import Reward, RewardWeights, reward
from alto_models.altollm.scoring import AnswerLogProbs, Group, answer_log_probs
from alto_models.altollm.segmenting import decode_answers
from alto_models.altollm.vocabulary import padding_id
from alto_models.data.referring import ReferringImage, ReferringImages, ReferringRecord
from alto_models.metrics import overlap
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer
from alto_models.tokenizer.whole_image import embed_whole_image
from alto_models.training.loop import StepResult, Training
from alto_models.training.schedule import LearningRate
from jobs.altollm_pictures import save_curves, save_samples
from jobs.altollm_sampling import batch_of
from jobs.runner.context import Check, JobConfig, StageContext, StageReport

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration


class Config(JobConfig):
    """Sizes are per optimizer step."""

    steps: int = Field(gt=0)
    prompts_per_step: int = Field(gt=0)
    group_size: int = Field(gt=1, description="answers sampled for each prompt")
    adaptive_share: float = Field(
        ge=0, le=1, description="of prompts that ask for an adaptive length; only there brevity is rewarded"
    )
    temperature: float = Field(gt=0)
    top_k: int | None = Field(gt=0)
    variant: Variant
    reward: RewardWeights
    kl_weight: float = Field(ge=0, description="0: no reference model")
    clip: float = Field(gt=0, lt=1)
    learning_rate: LearningRate
    weight_decay: float = Field(ge=0)
    save_every: int = Field(gt=0, description="steps between checkpoints to resume from")
    evaluated_images: int = Field(gt=0, description="of the val split, at most")
    max_malformed_share: float = Field(ge=0, le=1, description="of answers, for training_health")


def run(config: Config, context: StageContext) -> StageReport:
    torch.manual_seed(context.seed)
    mask_tokenizer = load_tokenizer(context.inputs["tokenizer_stage1_5"])
    llm = AltoLLM.load(context.inputs["altollm_sft"])
    val = ReferringImages(context.inputs["prepare_referring"], "val")
    held_out = HeldOut.of(spread(val, config.evaluated_images), mask_tokenizer)
    before = evaluate(llm, mask_tokenizer, held_out, adaptive=True).figures("before")

    Optimisation(config, context, llm, mask_tokenizer).run()

    after = evaluate(llm, mask_tokenizer, held_out, adaptive=True)
    llm.save(context.output)
    save_curves(context)
    save_samples(context, held_out, after)
    figures = before | after.figures("after")
    return StageReport(
        figures={
            **figures,
            "mean_length_change": round(_relative(figures, "mean_length"), 4),
            "giou_change": round(figures["after_giou"] - figures["before_giou"], 4),
            "val_questions": len(held_out.questions),
        },
        checks=(training_health(context, figures["after_malformed"], config.max_malformed_share),),
    )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One training question. target: (H, W) bool."""

    image: ReferringImage
    record: ReferringRecord
    expression: str
    adaptive: bool

    @property
    def name(self) -> str:
        return f"{self.image.source}/{self.record.record_id}"

    def target(self) -> np.ndarray:
        if self.record.rle is None:
            return np.zeros(self.image.image.shape[:2], dtype=bool)
        return mask_arithmetic.decode(self.record.rle).astype(bool)


class Optimisation:
    """The training run. Only the language model moves: the vision tower and its projection stay as they are."""

    def __init__(
        self, config: Config, context: StageContext, llm: AltoLLM, mask_tokenizer: MaskTokenizer
    ) -> None:
        self.config = config
        self.context = context
        self.llm = llm
        self.mask_tokenizer = mask_tokenizer
        self.max_length = mask_tokenizer.config.max_length
        self.padding = padding_id(llm.tokenizer)
        self.images = ReferringImages(context.inputs["prepare_referring"], "train")
        self.reference = AltoLLM.load(context.inputs["altollm_sft"]).model if config.kl_weight else None
        llm.model.requires_grad_(False)
        llm.model.model.language_model.requires_grad_(True)
        llm.model.lm_head.requires_grad_(True)

    def run(self) -> None:
        config = self.config
        trained = [parameter for parameter in self.llm.model.parameters() if parameter.requires_grad]

        def log(step: int, figures: Mapping[str, float]) -> None:
            self.context.log_metrics(step, **figures)

        training = Training(
            model=self.llm.model,
            optimizer=torch.optim.AdamW(
                trained, config.learning_rate.peak, betas=(0.9, 0.95), weight_decay=config.weight_decay
            ),
            learning_rate=config.learning_rate,
            total_steps=config.steps,
            forward=self.step,
            folder=self.context.work,
            save_every=config.save_every,
            log=log,
            log_every=max(1, min(5, config.steps // 4)),
        )
        done = training.restore()
        with self.context.progress(config.steps, "GRPO", "step", initial=done) as bar:
            training.run(done, bar)

    def step(self, step: int) -> StepResult:
        """Sample, reward, and the loss of one batch of prompts."""
        config = self.config
        samples = self._samples(step)
        image = self.llm.encode_images([sample.image.image for sample in samples])
        groups = self._sample_answers(samples, image, step)
        rewards = [self._rewards(sample, group) for sample, group in zip(samples, groups, strict=True)]
        totals = torch.tensor([[one.total for one in group] for group in rewards])
        _require_finite(totals, samples)

        policy = self._log_probs(self.llm.model, image, groups)
        reference = None
        if self.reference is not None:
            with torch.no_grad():
                reference = self._log_probs(self.reference, image, groups).log_probs
        loss = grpo_loss(
            policy.log_probs,
            advantages(totals, config.variant).flatten(),
            policy.counted,
            reference_log_probs_NT=reference,
            clip=config.clip,
            kl_weight=config.kl_weight,
            variant=config.variant,
            max_tokens=policy.counted.shape[1],
        )
        return StepResult(
            loss=loss,
            samples=[sample.name for sample in samples],
            figures=self._figures(samples, groups, rewards),
        )

    def _samples(self, step: int) -> list[Sample]:
        rng = np.random.default_rng([self.context.seed, 2, step])
        chosen = []
        for index in batch_of(step, self.config.prompts_per_step, len(self.images), self.context.seed):
            image = self.images[index]
            record = image.records[int(rng.integers(len(image.records)))]
            expression = record.expressions[int(rng.integers(len(record.expressions)))]
            adaptive = bool(rng.random() < self.config.adaptive_share)
            chosen.append(Sample(image=image, record=record, expression=expression, adaptive=adaptive))
        return chosen

    def _sample_answers(self, samples: Sequence[Sample], image: Tensor, step: int) -> list[Group]:
        config, llm = self.config, self.llm
        prompts = [
            llm.template.question_ids(
                llm.tokenizer, segment_prompt(sample.expression, adaptive=sample.adaptive)
            )
            for sample in samples
        ]
        answers = llm.generate(
            Questions(
                image=image,
                prefix=llm.prefix,
                image_of=range(len(samples)),
                prompts=prompts,
                max_lengths=[self.max_length] * len(samples),
                samples=config.group_size,
            ),
            Sampling(
                temperature=config.temperature,
                top_k=config.top_k,
                generator=torch.Generator().manual_seed(self.context.seed + step),
            ),
        )
        size = config.group_size
        return [
            Group(prompt=prompt, answers=answers[index * size : (index + 1) * size])
            for index, prompt in enumerate(prompts)
        ]

    def _rewards(self, sample: Sample, group: Group) -> list[Reward]:
        answers = [self.llm.read(ids) for ids in group.answers]
        picture = sample.image.image
        embedding = embed_whole_image(self.mask_tokenizer, [picture])
        masks = decode_answers(self.mask_tokenizer, embedding, picture.shape[:2], answers)
        target, weights = sample.target(), self.config.reward
        if not sample.adaptive:
            weights = weights.model_copy(update={"length": 0.0})
        return [
            reward(answer, overlap(mask, target), self.max_length, weights)
            for answer, mask in zip(answers, masks, strict=True)
        ]

    def _log_probs(
        self, model: "InternVLForConditionalGeneration", image: Tensor, groups: Sequence[Group]
    ) -> AnswerLogProbs:
        return answer_log_probs(
            model,
            self.llm.grammar,
            image,
            self.llm.prefix,
            groups,
            max_length=self.max_length,
            temperature=self.config.temperature,
            padding_id=self.padding,
        )

    def _figures(
        self, samples: Sequence[Sample], groups: Sequence[Group], rewards: Sequence[Sequence[Reward]]
    ) -> dict[str, Tensor]:
        answers = [[self.llm.read(ids) for ids in group.answers] for group in groups]
        every = [one for group in rewards for one in group]
        figures = {
            "reward": torch.tensor([one.total for one in every]).mean(),
            "iou": torch.tensor([one.iou for one in every]).mean(),
            "malformed": torch.tensor(
                [float(answer.malformed) for group in answers for answer in group]
            ).mean(),
        }
        for name, adaptive in (("mean_length", True), ("mean_full_length", False)):
            lengths = [
                float(answer.length)
                for sample, group in zip(samples, answers, strict=True)
                for answer in group
                if answer.codes and sample.adaptive == adaptive
            ]
            if lengths:
                figures[name] = torch.tensor(lengths).mean()
        return figures


def _require_finite(totals: Tensor, samples: Sequence[Sample]) -> None:
    for row, sample in zip(totals, samples, strict=True):
        if not bool(row.isfinite().all()):
            raise ArithmeticError(f"a reward of {sample.name} is not finite: {row.tolist()}")


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


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("altollm_grpo")
