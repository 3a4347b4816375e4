"""A tiny training run on ZeRO or without, in one of several processes."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from alto_models.training import zero
from alto_models.training.loop import StepResult, Training
from alto_models.training.processes import own_passes, process_rank
from alto_models.training.schedule import LearningRate
from data_contracts.errors import JobStopped
from jobs.runner.stopping import STATUS_STOPPED

ROOT = Path(__file__).resolve().parents[3]
STEPS = 10
SAMPLES = 8
RESULT = "result.pt"


class Bar:
    def update(self, n: float = 1) -> None:
        pass


def run(
    folder: Path,
    rank: int,
    processes: int,
    *,
    stage: str | None,
    samples_per_pass: int | None = None,
    precision: Any = "fp32",
    killed_while_saving: int | None = None,
    bad_step: int | None = None,
    last_asked_at: int | None = None,
) -> None:
    """Train in one of `processes`; the first leaves the curve and the weights in `folder`.

    killed_while_saving: steps done at which the first process dies, with the checkpoint written but not yet valid.
    last_asked_at: step from which on the last process, and no other, is asked to stop; status 75 then.
    """
    torch.set_num_threads(1)
    if processes > 1:
        meeting = f"file://{folder / 'meeting'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
        os.environ["LOCAL_RANK"] = str(rank)
    if killed_while_saving is not None:
        die_at(killed_while_saving)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 1))
    model[0].requires_grad_(False)
    forward = Forward(model, samples_per_pass, bad_step)
    asked = last_asked_at is not None and rank == processes - 1
    log: list[tuple[int, Mapping[str, float]]] = []
    training = Training(
        model=model,
        optimizer=optimizer_of(model),
        learning_rate=LearningRate(peak=0.02, final=0.0, warmup_steps=2),
        total_steps=STEPS,
        forward=forward,
        folder=folder,
        save_every=3,
        log=lambda step, figures: log.append((step, figures)),
        log_every=2,
        passes=len(own_passes(SAMPLES, samples_per_pass, "SAMPLES")),
        precision=precision,
        stop=lambda: asked and forward.step >= last_asked_at,
        deepspeed=ROOT / f"infra/deepspeed/{stage}.json" if stage else None,
    )
    first = training.restore()
    try:
        training.run(first, Bar())
    except JobStopped:
        sys.exit(STATUS_STOPPED)
    model(torch.arange(5)).sum().backward()  # an ordinary model again
    if process_rank() == 0:
        torch.save({"first": first, "log": log, "model": model.state_dict()}, folder / RESULT)


class Forward:
    """Mean squared error on samples that depend on the step and their place in it only."""

    def __init__(self, model: nn.Module, samples_per_pass: int | None, bad_step: int | None) -> None:
        self.model = model
        self.passes = own_passes(SAMPLES, samples_per_pass, "SAMPLES")
        self.calls = 0
        self.step = -1
        self.bad_step = bad_step

    def __call__(self, step: int) -> StepResult:
        own = list(self.passes[self.calls % len(self.passes)])
        self.calls += 1
        self.step = step
        generator = torch.Generator().manual_seed(step)
        words = torch.randint(5, (SAMPLES, 3), generator=generator)[own]
        wanted = torch.randn(SAMPLES, 3, 1, generator=generator)[own]
        loss = (self.model(words) - wanted).square().mean()
        if step == self.bad_step:
            loss = loss * float("nan")
        return StepResult(loss=loss, samples=[f"sample-{step}"], figures={"twice": 2 * loss})


def optimizer_of(model: nn.Sequential) -> torch.optim.AdamW:
    matrices = [model[1].weight, model[4].weight]
    others = [model[1].bias, model[3].weight, model[3].bias, model[4].bias]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.1, "rate_scale": 0.5},
            {"params": others, "weight_decay": 0.0, "rate_scale": 1.0},
        ]
    )


def die_at(done: int) -> None:
    def write(path: Path, fill: Any) -> None:
        if path.name == zero.LATEST and (path.parent / f"step_{done}").is_dir():
            os.kill(os.getpid(), signal.SIGKILL)
        replace(path, fill)

    replace, zero.replace_atomically = zero.replace_atomically, write
