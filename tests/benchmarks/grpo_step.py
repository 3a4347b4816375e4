"""A GRPO step: ours against the published procedure at equal sizes, prompts, answers and rewards.

The published procedure treats every sampled answer as a conversation of its own: vision tower and prompt run once for
each in each of three passes, which sample, score under the reference and score under the policy (36 vision runs a
prompt with groups of 12). Ours encodes an image once, reads a prompt once for its group, and packs a group behind it.
Both draw the same answers; both decode them together for the reward, so that row is no advantage of ours.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alto_models.altollm.generation import Questions, Sampling
from alto_models.altollm.grpo import advantages, grpo_loss
from alto_models.altollm.processor import normalise, square_thumbnail
from alto_models.altollm.reference import ReferenceWeights, language_parameters
from alto_models.altollm.scoring import AnswerLogProbs, Group, answer_log_probs
from alto_models.altollm.segmenting import decode_answers
from alto_models.altollm.vocabulary import padding_id
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.whole_image import embed_whole_image
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, ratio, table
from tests.benchmarks.language_models import (
    REDUCED,
    SMALL,
    LanguageModelSize,
    answer_masks,
    mask_prompts,
    pictures,
    untrained,
)

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration

T = TypeVar("T")

PARTS = {
    "sample": "sampling",
    "reward": "rewards, alike in both",
    "score_reference": "scores under the reference",
    "score_policy": "scores under the policy, backward pass",
    "update": "optimizer",
}
TEMPERATURE, TOP_K, KL_WEIGHT = 1.0, 10, 1e-3  # published


class Step(ABC):
    """The parts of a step, in the order of PARTS; each leaves what later ones read.

    N answers (prompts x group size) of T tokens.
    """

    def __init__(self, size: LanguageModelSize) -> None:
        self.size = size
        self.llm = untrained(size)
        self.pictures = pictures(size.prompts)
        self.prompts = mask_prompts(self.llm, size.prompts)
        self.masks = MaskTokenizer(size.masks).eval()
        self.embeddings = embed_whole_image(self.masks, self.pictures)
        self.llm.model.requires_grad_(False)
        self.trained = language_parameters(self.llm.model)
        for parameter in self.trained:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.trained, 1e-6)
        self.answers: list[list[int]] = []
        self.advantages = torch.empty(0)
        self.reference_log_probs = torch.empty(0)

    @abstractmethod
    def sample(self) -> None:
        """Answers to each prompt, from the start of the mask on, group by group."""

    @abstractmethod
    def score(self, model: "InternVLForConditionalGeneration") -> AnswerLogProbs:
        """Log-probabilities of the answers."""

    @abstractmethod
    def score_reference(self) -> None: ...

    def reward(self) -> None:
        """The share of the image that the mask covers: as much work as an overlap."""
        read = [self.llm.read([*answer, self.llm.turn_end]) for answer in self.answers]
        group, totals = self.size.group_size, []
        for place, picture in enumerate(self.pictures):
            mine = read[place * group : (place + 1) * group]
            masks = decode_answers(self.masks, self.embeddings[place : place + 1], picture.shape[:2], mine)
            totals.append([float(mask.mean()) for mask in masks])
        self.advantages = advantages(torch.tensor(totals), "grpo").flatten()

    def score_policy(self) -> Tensor:
        scores = self.score(self.llm.model)
        loss = grpo_loss(
            scores.log_probs,
            self.advantages,
            scores.counted,
            reference_log_probs_NT=self.reference_log_probs,
            kl_weight=KL_WEIGHT,
        )
        self.optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    def update(self) -> None:
        self.optimizer.step()

    def all(self) -> None:
        for part in PARTS:
            getattr(self, part)()

    def _generate(self, image: Tensor, prompts: list[list[int]], samples: int) -> None:
        questions = Questions(
            image=image,
            prefixes=self.llm.prefixes(image),
            image_of=range(len(image)),
            prompts=prompts,
            max_lengths=[self.size.masks.max_length] * len(prompts),
            samples=samples,
        )
        # A generator a prompt, whether its answers are samples of one question or questions of their own.
        each = [np.random.default_rng([0, place]) for place in range(self.size.prompts)]
        randomness = [one for one in each for _ in range(len(prompts) // len(each))]
        sampling = Sampling(temperature=TEMPERATURE, top_k=TOP_K, randomness=randomness)
        self.answers = [
            [self.llm.vocabulary.start, *answer] for answer in answer_masks(self.llm, questions, sampling)
        ]


class Published(Step):
    """Every answer a conversation of its own, the prompts padded on the left; the reference is a second model."""

    def __init__(self, size: LanguageModelSize) -> None:
        super().__init__(size)
        self.reference = copy.deepcopy(self.llm.model)

    def _each(self, values: Sequence[T]) -> list[T]:
        return [value for value in values for _ in range(self.size.group_size)]

    def sample(self) -> None:
        image = self.llm.encode_images(self._each(self.pictures))
        self._generate(image, self._each(self.prompts), 1)

    def score(self, model: "InternVLForConditionalGeneration") -> AnswerLogProbs:
        llm = self.llm
        squares = np.stack([square_thumbnail(each, llm.image_size) for each in self._each(self.pictures)])
        padding = padding_id(llm.tokenizer)
        prefix = llm.prefix(llm.model.config.image_seq_length)
        before = pad_sequence(
            [torch.tensor([*prefix, *prompt[:-1]]) for prompt in self._each(self.prompts)],
            batch_first=True,
            padding_value=padding,
            padding_side="left",
        )
        answers = [torch.tensor(answer) for answer in self.answers]
        after = pad_sequence(answers, batch_first=True, padding_value=padding)
        counted = torch.arange(after.shape[1]) < torch.tensor([len(answer) for answer in answers])[:, None]
        logits = model(
            input_ids=torch.cat([before, after], 1),
            pixel_values=normalise(squares),
            attention_mask=torch.cat([before != padding, counted], 1).long(),
            logits_to_keep=after.shape[1] + 1,
            use_cache=False,
        ).logits[:, :-1]
        longest = torch.full((len(answers),), self.size.masks.max_length)
        restricted = llm.grammar.restrict(logits / TEMPERATURE, llm.grammar.states(after, longest))
        log_probs = restricted.log_softmax(-1).gather(2, after[:, :, None])[:, :, 0]
        return AnswerLogProbs(log_probs=log_probs.where(counted, 0.0), counted=counted)

    @torch.no_grad()
    def score_reference(self) -> None:
        self.reference_log_probs = self.score(self.reference).log_probs


class Ours(Step):
    """What `jobs.grpo_training` does in a step."""

    def __init__(self, size: LanguageModelSize) -> None:
        super().__init__(size)
        self.reference = ReferenceWeights(self.llm.model)
        self.image = torch.empty(0)

    def sample(self) -> None:
        self.image = self.llm.encode_images(self.pictures)
        self._generate(self.image, self.prompts, self.size.group_size)

    def score(self, model: "InternVLForConditionalGeneration") -> AnswerLogProbs:
        group = self.size.group_size
        return answer_log_probs(
            model,
            self.llm.grammar,
            self.image,
            self.llm.prefixes(self.image),
            [
                Group(prompt=prompt[:-1], answers=self.answers[place * group : (place + 1) * group])
                for place, prompt in enumerate(self.prompts)
            ],
            max_length=self.size.masks.max_length,
            temperature=TEMPERATURE,
            padding_id=padding_id(self.llm.tokenizer),
        )

    def score_reference(self) -> None:
        with self.reference.in_place():
            self.reference_log_probs = self.score(self.llm.model).log_probs


def step_times(size: LanguageModelSize, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Processor seconds of each part and "all", of the published procedure and of ours."""
    cases: dict[str, Callable[[], object]] = {}
    for name, step in (("published", Published(size)), ("ours", Ours(size))):
        step.all()
        cases |= {f"{name} {part}": getattr(step, part) for part in (*PARTS, "all")}
    seconds = interleaved(cases, repeats)
    published, ours = (
        {part: seconds[f"{name} {part}"] for part in (*PARTS, "all")} for name in ("published", "ours")
    )
    return published, ours


def step_table(size: LanguageModelSize, repeats: int) -> str:
    published, ours = step_times(size, repeats)
    labels = PARTS | {"all": "**together, measured in one**"}
    rows = [
        [label, milliseconds(published[part]), milliseconds(ours[part]), ratio(ours[part], published[part])]
        for part, label in labels.items()
    ]
    head = f"{size.name}: ms a step of {size.prompts} prompts x {size.group_size} answers"
    return table([head, "published", "ours", "factor"], rows)


def main() -> None:
    options = arguments(__doc__, "grpo_step", repeats=5).parse_args()
    intro = f"Processor time of a GRPO step, median of {options.repeats} ({machine()}):"
    tables = [step_table(size, options.repeats) for size in (REDUCED, SMALL)]
    publish("grpo_step", "\n\n".join([intro, *tables]), options.write)


if __name__ == "__main__":
    main()
