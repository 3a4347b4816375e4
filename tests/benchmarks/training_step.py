"""Masks a second of a stage 1 training step: ours with K masks an image, against the published procedure with one.

Parts are timed alone (forward and backward), and once more all together. The networks are of equal sizes: one
pair in the published proportions, small enough for a processor, and the pair of the profile `small`.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.benchmarks.flops import step_flops
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, ratio, table
from tests.benchmarks.parts import PassInputs, parts_of_a_pass
from tests.benchmarks.procedures import Procedure, both_procedures
from tests.benchmarks.reading import reading_times, sample_scenes
from tests.benchmarks.scenes import Scenes
from tests.benchmarks.sizes import FULL, MASKS_PER_IMAGE, MASKS_PER_STEP, REDUCED, SMALL, Size

PARTS = {
    "image": "image encoding, once for K masks",
    "head": "mask head",
    "loss": "loss",
    "transformers": "encoder and de-tokenizer",
    "optimizer": "optimizer",
    "reading": "data",
}
TOGETHER = "together, measured in one"
ALL_BF16 = "all in bfloat16"


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Processor seconds a mask of each part and "all", of the published procedure and of ours."""

    published: dict[str, float]
    ours: dict[str, float]


def step_times(size: Size, scenes: Scenes, repeats: int) -> StepTimes:
    cases: dict[str, Callable[[], None]] = {}
    for name, procedure, masks_per_image in _both(size):
        inputs = _random_inputs(size, masks_per_image)
        parts = parts_of_a_pass(procedure, inputs)
        parts["all"]()
        cases |= {f"{name} {part}": run for part, run in parts.items()}
        cases[f"{name} {ALL_BF16}"] = _in_bfloat16(parts["all"])
        cases[f"{name} optimizer"] = _updates(procedure)
    seconds = interleaved(cases, repeats)
    reading = reading_times(scenes, size, repeats)
    return StepTimes(
        published=_a_mask(seconds, "published", size, reading.published),
        ours=_a_mask(seconds, "ours", size, reading.ours),
    )


def _both(size: Size) -> tuple[tuple[str, Procedure, int], ...]:
    published, ours = both_procedures(size)
    return ("published", published, 1), ("ours", ours, MASKS_PER_IMAGE)


def _random_inputs(size: Size, masks_per_image: int) -> PassInputs:
    zeros = PassInputs.zeros(size, masks_per_image)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(len(zeros.masks), 1, 8, 8, generator=generator) > 0.5
    masks = torch.nn.functional.interpolate(coarse.float(), size=zeros.masks.shape[-1])
    return PassInputs(images=torch.rand(zeros.images.shape, generator=generator), masks=masks)


def _in_bfloat16(run: Callable[[], None]) -> Callable[[], None]:
    def run_in_bfloat16() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            run()

    return run_in_bfloat16


def _updates(procedure: Procedure) -> Callable[[], None]:
    """Optimizer steps with the gradients of the last pass, which a step uses up."""
    gradients = [parameter.grad for parameter in procedure.trained]

    def update() -> None:
        for parameter, gradient in zip(procedure.trained, gradients, strict=True):
            parameter.grad = gradient
        procedure.update()
        procedure.optimizer.zero_grad()

    return update


def _a_mask(seconds: dict[str, float], name: str, size: Size, reading: float) -> dict[str, float]:
    parts = ("image", "head", "loss", "transformers", "all", ALL_BF16)
    times = {part: seconds[f"{name} {part}"] / size.masks_per_pass for part in parts}
    times["optimizer"] = seconds[f"{name} optimizer"] / MASKS_PER_STEP
    times["reading"] = reading
    for passes in ("all", ALL_BF16):
        times[passes] += times["optimizer"] + reading
    return times


def time_table(size: Size, times: StepTimes) -> str:
    both = (times.published, times.ours)
    rows = [[label, *_both_and_ratio(*(each[part] for each in both))] for part, label in PARTS.items()]
    rest = [each["transformers"] + each["optimizer"] for each in both]
    rows.insert(5, ["rest of the step: the two above", *_both_and_ratio(*rest)])
    rows.append([f"**{TOGETHER}**", *_both_and_ratio(*(each["all"] for each in both))])
    rows.append(["masks a second", *(f"{1 / each['all']:.2f}" for each in both), ""])
    rows.append(["together, both in bfloat16", *_both_and_ratio(*(each[ALL_BF16] for each in both))])
    columns = [f"{size.name}: ms a mask", "published, K = 1", f"ours, K = {MASKS_PER_IMAGE}", "factor"]
    return table(columns, rows)


def _both_and_ratio(published: float, ours: float) -> list[str]:
    return [milliseconds(published), milliseconds(ours), ratio(ours, published)]


def flops_table() -> str:
    rows = []
    for size in (FULL, REDUCED, SMALL):
        both = step_flops(size)
        totals = [flops["all"] + flops["optimizer"] for flops in both]
        names = (f"{size.name}: published, K = 1", f"{size.name}: ours, K = {MASKS_PER_IMAGE}")
        factors = ("", ratio(totals[1], totals[0]))
        for name, flops, total, factor in zip(names, both, totals, factors, strict=True):
            parts = [flops[part] for part in ("image", "transformers", "head", "optimizer")]
            shares = [f"{_billions(part)} ({part / total:.0%})" for part in parts]
            rows.append([name, *shares, _billions(total), factor])
    columns = [
        "GFLOPs a mask",
        "image",
        "encoder and de-tokenizer",
        "mask head",
        "optimizer",
        "together",
        "factor",
    ]
    return table(columns, rows)


def _billions(flops: float) -> str:
    return f"{flops / 1e9:.3g}" if flops < 1e11 else f"{flops / 1e9:.0f}"


def main() -> None:
    parser = arguments(__doc__, "training_step", repeats=3)
    options = parser.parse_args()
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for size in (REDUCED, SMALL):
            scenes = sample_scenes(Path(folder) / size.name, size)
            tables.append(time_table(size, step_times(size, scenes, options.repeats)))
    intro = f"Processor time of a training step of {MASKS_PER_STEP} masks, median of {options.repeats} ({machine()}):"
    publish("training_step", "\n\n".join([intro, *tables, flops_table()]), options.write)


if __name__ == "__main__":
    main()
