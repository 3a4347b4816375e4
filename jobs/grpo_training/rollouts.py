"""Answers to a batch of prompts, and what they are worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alto_models import masks as mask_arithmetic
from alto_models.altollm.answering import AltoLLM, Answer
from alto_models.altollm.conversation import segment_prompt
from alto_models.altollm.generation import MAX_TEXT_TOKENS, Questions, Sampling
from alto_models.altollm.grpo import advantages
from alto_models.altollm.network import ImageTokens
from alto_models.altollm.rewards import Reward, reward
from alto_models.altollm.scoring import Group
from alto_models.altollm.segmenting import decode_answers
from alto_models.data.referring import ReferringImage, ReferringImages, ReferringRecord
from alto_models.metrics import overlap
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.whole_image import embed_whole_image
from alto_models.training.precision import autocast, to_device
from alto_models.training.processes import mean_over_processes
from data_contracts.errors import InputError
from jobs.altollm_sampling import batch_of
from jobs.grpo_training.settings import GrpoConfig


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


@dataclass(kw_only=True)
class Rollout:
    """Answers of the policy as it was when they were sampled: P samples, N = P x G answers of T tokens.

    image: of each sample. advantages: (N,). figures: to log. Log-probabilities are (N, T):
    old_log_probs of the sampling policy, None until its first update is computed, which gives them;
    reference_log_probs None without a reference.
    """

    samples: Sequence[Sample]
    image: ImageTokens
    groups: Sequence[Group]
    advantages: Tensor
    figures: dict[str, Tensor]
    old_log_probs: Tensor | None = None
    reference_log_probs: Tensor | None = None

    def split(self, count: int) -> "list[Rollout]":
        """`count` equal parts, each with the figures of all; no log-probabilities yet."""
        prompts, answers = len(self.samples) // count, len(self.advantages) // count
        return [
            Rollout(
                samples=self.samples[part * prompts : (part + 1) * prompts],
                image=self.image[part * prompts : (part + 1) * prompts],
                groups=self.groups[part * prompts : (part + 1) * prompts],
                advantages=self.advantages[part * answers : (part + 1) * answers],
                figures=self.figures,
            )
            for part in range(count)
        ]


class RolloutMaker:
    """Samples answers and rewards them. The images are encoded once, each prompt is read once.

    What is asked and drawn for a prompt depends on the seed, the rollout's number and the prompt's place in it, not
    on the prompts beside it: several processes draw what one would.
    """

    def __init__(
        self,
        config: GrpoConfig,
        seed: int,
        llm: AltoLLM,
        mask_tokenizer: MaskTokenizer,
        images: ReferringImages,
    ) -> None:
        self.config = config
        self.seed = seed
        self.llm = llm
        self.mask_tokenizer = mask_tokenizer
        self.images = images

    def make(self, index: int, places: range) -> Rollout:
        """The prompts at `places` of the rollout of that number, and the policy's answers.

        Raises InputError naming the sample whose prompt is too long, ArithmeticError naming the one whose reward
        is not finite.
        """
        samples = self._samples(index, places)
        with autocast(self.config.training.precision, self.llm.model.device):
            image = self.llm.encode_images([sample.image.image for sample in samples])
            randomness = [np.random.default_rng([self.seed, 3, index, place]) for place in places]
            groups = self._sample_answers(samples, image, randomness)
        answers = [[self.llm.read(ids) for ids in group.answers] for group in groups]
        rewards = [self._rewards(sample, given) for sample, given in zip(samples, answers, strict=True)]
        totals = torch.tensor([[one.total for one in group] for group in rewards])
        _require_finite(totals, samples)
        return Rollout(
            samples=samples,
            image=image,
            groups=groups,
            advantages=to_device(advantages(totals, self.config.variant).flatten(), self.llm.model.device),
            figures=self._figures(samples, answers, rewards),
        )

    def _samples(self, index: int, places: range) -> list[Sample]:
        images = batch_of(index, self.config.prompts_per_step, len(self.images), self.seed)
        chosen = []
        for place in places:
            rng = np.random.default_rng([self.seed, 2, index, place])
            image = self.images[images[place]]
            record = self._draw_record(image.records, rng)
            expression = record.expressions[int(rng.integers(len(record.expressions)))]
            adaptive = bool(rng.random() < self.config.adaptive_share)
            chosen.append(Sample(image=image, record=record, expression=expression, adaptive=adaptive))
        return chosen

    def _draw_record(self, records: Sequence[ReferringRecord], rng: np.random.Generator) -> ReferringRecord:
        weights = np.array([self.config.no_target_weight if one.no_target else 1.0 for one in records])
        return records[int(rng.choice(len(records), p=weights / weights.sum()))]

    def _sample_answers(
        self, samples: Sequence[Sample], image: ImageTokens, randomness: Sequence[np.random.Generator]
    ) -> list[Group]:
        config = self.config
        questions = self.llm.questions(
            image,
            [segment_prompt(sample.expression, adaptive=sample.adaptive) for sample in samples],
            max_length=self.mask_tokenizer.config.max_length,
            samples=config.group_size,
        )
        self._require_room(samples, questions)
        sampling = Sampling(temperature=config.temperature, top_k=config.top_k, randomness=randomness)
        answers = self.llm.generate(questions, sampling)
        size = config.group_size
        return [
            Group(prompt=prompt, answers=answers[place * size : (place + 1) * size])
            for place, prompt in enumerate(questions.prompts)
        ]

    def _require_room(self, samples: Sequence[Sample], questions: Questions) -> None:
        limit = self.llm.model.config.text_config.max_position_embeddings
        room = limit - MAX_TEXT_TOKENS - self.mask_tokenizer.config.max_length
        for sample, prefix, prompt in zip(samples, questions.prefixes, questions.prompts, strict=True):
            if (asked := len(prefix) + len(prompt)) > room:
                raise InputError(
                    f"{sample.name}: the prompt has {asked} tokens with its image, and with room for an answer the "
                    f"model reads at most {room}: shorten the expression"
                )

    def _rewards(self, sample: Sample, answers: Sequence[Answer]) -> list[Reward]:
        picture = sample.image.image
        embedding = embed_whole_image(self.mask_tokenizer, [picture])
        masks = decode_answers(self.mask_tokenizer, embedding, picture.shape[:2], answers)
        target, ignored = sample.target(), sample.record.ignored
        max_length = self.mask_tokenizer.config.max_length
        return [
            reward(
                answer,
                overlap(mask, target, ignored),
                max_length,
                self.config.reward,
                adaptive=sample.adaptive,
            )
            for answer, mask in zip(answers, masks, strict=True)
        ]

    def _figures(
        self,
        samples: Sequence[Sample],
        answers: Sequence[Sequence[Answer]],
        rewards: Sequence[Sequence[Reward]],
    ) -> dict[str, Tensor]:
        every = [one for group in rewards for one in group]
        figures = {
            "reward": torch.tensor([one.total for one in every]).mean(),
            "iou": torch.tensor([one.iou for one in every]).mean(),
            "malformed": torch.tensor(
                [float(answer.malformed) for given in answers for answer in given]
            ).mean(),
        }
        for name, adaptive in (("mean_length", True), ("mean_full_length", False)):
            lengths = [
                answer.length
                for sample, given in zip(samples, answers, strict=True)
                for answer in given
                if answer.codes and sample.adaptive == adaptive
            ]
            # A process may have no such answer; the figure is there for all of them or for none.
            total, count = mean_over_processes(torch.tensor([sum(lengths), len(lengths)]).float())
            if count:
                figures[name] = total / count
        return {name: to_device(value, self.llm.model.device) for name, value in figures.items()}


def _require_finite(totals: Tensor, samples: Sequence[Sample]) -> None:
    for row, sample in zip(totals, samples, strict=True):
        if not bool(row.isfinite().all()):
            raise ArithmeticError(f"a reward of {sample.name} is not finite: {row.tolist()}")
