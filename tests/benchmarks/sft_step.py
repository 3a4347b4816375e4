"""A step of supervised fine-tuning: with masks that were tokenised once, against the same step tokenising them.

Both learn the same answers from the same images, several records of an image packed into one sequence. Tokenising in
the step means that each mask is decoded at the image's size, padded, resized bicubically and encoded, as a collator
does that starts from annotations. Between the two: masks cut from their runs as `mask_tokens` does, and encoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from alto_models.altollm.conversation import mask_answer_ids
from alto_models.altollm.optimizer import build_optimizer
from alto_models.altollm.packing import Branch, pack
from alto_models.altollm.processor import normalise, square_thumbnail
from alto_models.altollm.supervised import SupervisedLoss
from alto_models.altollm.vocabulary import padding_id
from alto_models.masks import Rle, encode
from alto_models.tokenizer.config import ConvPixelEncoderConfig, TokenizerConfig
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.whole_image import mask_grids
from tests.benchmarks import language_models
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, ratio, table
from tests.benchmarks.language_models import SMALL, LanguageModelSize, mask_prompts, pictures, untrained

Codes = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """images a step, records an image; height, width: of the images as they are stored."""

    models: LanguageModelSize
    images: int
    records: int
    height: int
    width: int


# Tokens and image sizes as published, networks far smaller, the language model 12 times the mask encoder as in the
# profile `single_gpu`.
REDUCED = StepSize(
    models=replace(
        language_models.REDUCED,
        masks=TokenizerConfig(
            mask_size=256,
            grid=16,
            max_length=32,
            width=160,
            heads=5,
            codebook_size=1024,
            pixel_encoder=ConvPixelEncoderConfig(image_size=256),
        ),
    ),
    images=2,
    records=6,
    height=480,
    width=640,
)
SMALL_STEP = StepSize(models=SMALL, images=8, records=6, height=200, width=240)


class Step:
    """Everything a step starts from, and the step."""

    def __init__(self, size: StepSize) -> None:
        models = size.models
        self.size = size
        self.llm = untrained(models)
        self.tokenizer = MaskTokenizer(models.masks).eval()
        self.masks = random_masks(size.images * size.records, size.height, size.width)
        self.thumbnails = np.stack(
            [square_thumbnail(each, self.llm.image_size) for each in pictures(size.images)]
        )
        self.prompts = [prompt[:-1] for prompt in mask_prompts(self.llm, len(self.masks))]
        self.objective = SupervisedLoss(self.llm.model)
        self.optimizer = build_optimizer(self.llm.model, weight_decay=0.02)
        self.stored_codes = self.codes_from_runs()

    @torch.no_grad()
    def codes_from_runs(self) -> Codes:
        return self.tokenizer.encode(mask_grids(self.tokenizer, self.masks)).codes.tolist()

    @torch.no_grad()
    def codes_from_pixels(self) -> Codes:
        side = self.tokenizer.config.mask_size
        grids = np.stack([resized(each, side) for each in self.masks])
        return self.tokenizer.encode(torch.from_numpy(grids)[:, None]).codes.tolist()

    def learn(self, codes: Codes) -> torch.Tensor:
        llm = self.llm
        branches = [self._branch(*each) for each in zip(self.prompts, codes, strict=True)]
        image_tokens, records = llm.model.config.image_seq_length, self.size.records
        batch = pack(
            [llm.prefix(image_tokens)] * self.size.images,
            [branches[place * records : (place + 1) * records] for place in range(self.size.images)],
            padding_id=padding_id(llm.tokenizer),
            image_token=llm.model.config.image_token_id,
        )
        loss = self.objective(normalise(self.thumbnails), batch)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _branch(self, prompt: Sequence[int], codes: Sequence[int]) -> Branch:
        llm = self.llm
        answer = mask_answer_ids(llm.tokenizer, llm.template, llm.vocabulary.encode(codes))
        return Branch(ids=[*prompt, *answer], prompt_length=len(prompt))


def random_masks(count: int, height: int, width: int) -> list[Rle]:
    """Ellipses of different sizes, always the same."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    masks = []
    for _ in range(count):
        y, x = rng.uniform(0.2, 0.8, 2) * (height, width)
        tall, wide = rng.uniform(0.1, 0.3, 2) * (height, width)
        masks.append(encode(((rows - y) / tall) ** 2 + ((columns - x) / wide) ** 2 <= 1))
    return masks


def resized(mask: Rle, side: int) -> NDArray[np.float32]:
    """(side, side), 0 or 1: the mask in the upper left of a square, decoded at full size."""
    pixels = coco.decode({"size": [mask.height, mask.width], "counts": mask.counts.encode()})
    whole = np.zeros((max(pixels.shape),) * 2, np.uint8)
    whole[: mask.height, : mask.width] = pixels * 255
    grey = Image.fromarray(whole).resize((side, side), Image.Resampling.BICUBIC)
    return (np.asarray(grey) > 127).astype(np.float32)


def step_times(size: StepSize, repeats: int) -> dict[str, float]:
    """Processor seconds of a step."""
    step = Step(size)
    return interleaved(
        {
            "tokenised in the step": lambda: step.learn(step.codes_from_pixels()),
            "tokenised in the step, from runs": lambda: step.learn(step.codes_from_runs()),
            "tokenised once": lambda: step.learn(step.stored_codes),
        },
        repeats,
    )


def main() -> None:
    options = arguments(__doc__, "sft_step", repeats=5).parse_args()
    rows, names = [], []
    for size in (REDUCED, replace(REDUCED, images=8, records=1), SMALL_STEP):
        times = step_times(size, options.repeats)
        pixels, runs, stored = times.values()
        names = list(times)
        label = f"{size.models.name}: {size.images} images x {size.records} records"
        factors = [ratio(stored, pixels), ratio(stored, runs)]
        rows.append([label, *map(milliseconds, times.values()), *factors])
    columns = ["ms a step", *names, "factor", "factor, from runs"]
    text = f"Processor time of a step, median of {options.repeats} ({machine()}):\n\n{table(columns, rows)}"
    publish("sft_step", text, options.write)


if __name__ == "__main__":
    main()
