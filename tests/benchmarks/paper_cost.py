"""What the profile `paper` costs, stage by stage: arithmetic from its parameters, GPU hours, money.

Nothing is measured here; every figure that is assumed stands in ASSUMED with its name, and in the table.
`--write` puts the result into docs/operations.md.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from orchestration.profiles import render_profile
from tests.benchmarks.flops import counted_flops
from tests.benchmarks.harness import publish, table
from tests.benchmarks.parts import PassInputs, parts_of_a_pass
from tests.benchmarks.procedures import both_procedures
from tests.benchmarks.sizes import FULL

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "operations.md"
TERA, HOUR = 1e12, 3600.0
FORWARD, BACKWARD = (
    2.0,
    4.0,
)  # FLOPs for each parameter and token; attention over so few tokens adds about 1 %
AGAIN = FORWARD  # gradient checkpointing computes the forward pass a second time


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What the estimate rests on beside the profile.

    peak: FLOP/s of one GPU (H100 SXM, dense bfloat16, as its maker states). share_*: of the peak that is reached.
    sa1b_*, referring_*, benchmark_answers: of the full data sets. images_a_core_second: that one core prepares.
    vision_*, text_*: InternVL2.5-8B. *_tokens: of an image, a question, an answer.
    dollars: for one GPU hour.
    """

    peak: float = 989e12
    share_training: float = 0.25
    share_generating: float = 0.03
    sa1b_images: float = 11.1e6
    sa1b_bytes: float = 11.3e12
    referring_images: float = 60e3
    referring_masks: float = 400e3
    benchmark_answers: float = 400e3
    images_a_core_second: float = 19.6
    vision_parameters: float = 0.304e9
    vision_tokens: float = 1025
    text_parameters: float = 7.74e9
    image_tokens: float = 256
    question_tokens: float = 48
    answer_tokens: float = 40
    dollars: float = 2.5


ASSUMED = Assumed()
WORDS: Mapping[str, str] = {
    "peak": "FLOP/s of one H100 SXM, dense bfloat16, stated by its maker",
    "share_training": "of the peak, in training and encoding. Not measured here; others got 13.5 images/s out of SAM "
    "ViT-H on an A100 in bfloat16, which is 26 % of its peak",
    "share_generating": "of the peak, while answers are made token by token; bound by memory. Not measured",
    "sa1b_images": "images of SA-1B (1,000 shards), stated by its publisher",
    "sa1b_bytes": "their size",
    "referring_images": "images of the referring sets that are tokenized (RefCOCO family and gRefCOCO)",
    "referring_masks": "masks in them",
    "benchmark_answers": "100,000 expressions of all benchmarks, by two models, with two kinds of prompt each",
    "images_a_core_second": "prepared by one core, measured (docs/performance.md)",
    "vision_parameters": "InternViT-300M",
    "vision_tokens": "patches of a 448-pixel tile and CLS",
    "text_parameters": "InternLM2.5-7B with embeddings and head",
    "image_tokens": "that the language model reads of a tile",
    "question_tokens": "of a prompt with its template",
    "answer_tokens": "about 32 codes, start, end and words",
    "dollars": "for a GPU hour",
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """flops: of the whole stage. share: of the peak. how: the sum, in words."""

    stage: str
    how: str
    flops: float
    share: float

    @property
    def gpu_hours(self) -> float:
        return self.flops / (ASSUMED.peak * self.share) / HOUR


def mask_flops() -> dict[str, float]:
    """Of one mask in training, one mask an image: counted on our network at the published size."""
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        _, ours = both_procedures(FULL)
        parts = parts_of_a_pass(ours, PassInputs.zeros(FULL, 1))
        return {
            name: counted_flops(parts[name]) / FULL.masks_per_pass
            for name in ("image", "transformers", "all")
        }


def estimate(parameters: Mapping[str, Any], mask: Mapping[str, float]) -> list[Cost]:
    """Of the stages that use GPUs, in their order. parameters: of the profile; mask: of mask_flops()."""
    return [*tokenizer_costs(parameters, mask), *language_costs(parameters, mask)]


def tokenizer_costs(parameters: Mapping[str, Any], mask: Mapping[str, float]) -> Iterator[Cost]:
    a, share = ASSUMED, ASSUMED.share_training
    each = f"{mask['all'] / TERA:.2f} TFLOP (counted; {mask['image'] / TERA:.2f} of it SAM)"
    for stage, remark in (("tokenizer_stage1", ""), ("tokenizer_stage1_5", ", as if all of it learned")):
        crops = parameters[stage]["crops"]
        masks = parameters[stage]["steps"] * crops["crops_per_step"] * crops["masks_per_crop"]
        yield Cost(
            stage=stage, how=f"{masks:,} masks × {each}{remark}", flops=masks * mask["all"], share=share
        )
    held_out = parameters["tokenizer_benchmark"]["images"]
    yield Cost(
        stage="tokenizer_benchmark",
        how=f"{held_out} images × 32 prefixes × {forward(mask) / TERA:.1f} TFLOP",
        flops=held_out * 32 * forward(mask),
        share=share,
    )
    yield Cost(
        stage="mask_tokens",
        how=f"{a.referring_images:,.0f} images through SAM, {a.referring_masks:,.0f} masks through the rest",
        flops=a.referring_images * mask["image"] + a.referring_masks * mask["transformers"] / 3,
        share=share,
    )


def forward(mask: Mapping[str, float]) -> float:
    """Of one mask without the way back, which is two thirds of the transformers'."""
    return mask["image"] + mask["transformers"] / 3


def language_costs(parameters: Mapping[str, Any], mask: Mapping[str, float]) -> Iterator[Cost]:
    a, sft, grpo = ASSUMED, parameters["altollm_sft"], parameters["altollm_grpo"]
    # Parameters times tokens that go through them.
    prompt = a.vision_parameters * a.vision_tokens + a.text_parameters * (a.image_tokens + a.question_tokens)
    answer = a.text_parameters * a.answer_tokens
    learned = (FORWARD + BACKWARD + AGAIN) * (prompt + answer)
    images = sft["steps"] * sft["images_per_step"]
    mask_loss = mask["image"] + mask["transformers"]
    yield Cost(
        stage="altollm_sft",
        how=f"{images:,} images × ({learned / TERA:.1f} TFLOP, 8 for each parameter and token, and "
        f"{mask_loss / TERA:.1f} of the mask loss)",
        flops=images * (learned + mask_loss),
        share=a.share_training,
    )
    prompts, group = grpo["steps"] * grpo["prompts_per_step"], grpo["group_size"]
    # A prompt is read once for its group. The reference is a forward pass more.
    scored = (FORWARD + BACKWARD + AGAIN + FORWARD) * (prompt + group * answer)
    rewarded = mask["image"] + group * mask["transformers"] / 3
    yield Cost(
        stage="altollm_grpo: updates",
        how=f"{prompts:,} prompts × ({scored / TERA:.1f} TFLOP with {group} answers, and "
        f"{rewarded / TERA:.1f} of their rewards)",
        flops=prompts * (scored + rewarded),
        share=a.share_training,
    )
    read, told = FORWARD * prompt, FORWARD * answer
    yield Cost(
        stage="altollm_grpo: answers",
        how=f"{prompts:,} prompts × ({read / TERA:.1f} + {group} × {told / TERA:.2f} TFLOP)",
        flops=prompts * (read + group * told),
        share=a.share_generating,
    )
    yield Cost(
        stage="benchmark: answers",
        how=f"{a.benchmark_answers:,.0f} answers × {(read + told) / TERA:.1f} TFLOP",
        flops=a.benchmark_answers * (read + told),
        share=a.share_generating,
    )
    yield Cost(
        stage="benchmark: masks",
        how=f"{a.benchmark_answers:,.0f} masks × {forward(mask) / TERA:.1f} TFLOP, the image encoded for each",
        flops=a.benchmark_answers * forward(mask),
        share=a.share_training,
    )


def report(costs: list[Cost]) -> str:
    a = ASSUMED
    rows = [
        (
            f"`{cost.stage}`" if ":" not in cost.stage else cost.stage,
            cost.how,
            f"{cost.flops / 1e18:.2g}",
            f"{cost.share:.0%}",
            f"{cost.gpu_hours:,.1f}",
            f"{cost.gpu_hours * a.dollars:,.0f}",
        )
        for cost in costs
    ]
    total = sum(cost.gpu_hours for cost in costs)
    rows.append(("**together**", "", "", "", f"**{total:,.0f}**", f"**{total * a.dollars:,.0f}**"))
    core_hours = a.sa1b_images / a.images_a_core_second / HOUR
    assumptions = [(f"`{each.name}`", f"{getattr(a, each.name):.3g}", WORDS[each.name]) for each in fields(a)]
    return (
        f"{table(('stage', 'work', 'EFLOP', 'of peak', 'GPU hours', 'US dollars'), rows)}\n\n"
        f"On 8 GPUs that is {total / 8 / 24:,.1f} days. Before them, `prepare_sa1b` takes {core_hours:,.0f} core hours "
        f"and `acquire_sa1b` {a.sa1b_bytes / 1.25e8 / HOUR:,.0f} hours at 1 Gbit/s.\n\n"
        f"{table(('assumed', 'value', 'what it is'), assumptions)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.paper_cost", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/operations.md")
    options = parser.parse_args()
    parameters = yaml.safe_load(render_profile(ROOT, "paper"))
    publish("paper_cost", report(estimate(parameters, mask_flops())), options.write, REPORT)


if __name__ == "__main__":
    main()
