"""The training loop of every stage: a step that reads top to bottom, exact resume, a clear stop.

A step never waits for the device: figures stay tensors until a log point, and a loss is looked at one step
late, in time for no checkpoint to hold what a bad one has done.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alto_models.training.averaging import AveragedWeights
from alto_models.training.precision import Precision, autocast
from alto_models.training.processes import (
    average_gradients,
    mean_over_processes,
    process_rank,
)
from alto_models.training.resume import restore_training_state, save_training_state
from alto_models.training.schedule import LearningRate, set_learning_rate


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the message names the step and the samples of its batch."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What the forward pass of one step gives.

    loss: scalar to minimise.
    samples: ids of the batch's samples, for the error message when the loss is not finite.
    figures: scalars to log; kept as tensors, so that nothing waits for the device between log points.
    after_update: called once the optimizer has moved, for what may not change before the backward pass.
    """

    loss: Tensor
    samples: Sequence[str]
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    after_update: Callable[[], None] = lambda: None


class ProgressBar(Protocol):
    def update(self, n: float = 1) -> object: ...


@dataclass(kw_only=True)
class Training:
    """One training run; in each of several processes (torch.distributed) the same, on its share of the samples.

    forward: step index (from 0) -> StepResult; called `passes` times a step, and the gradients of their mean
        are used. Its batch and every random choice must be a pure function of the step index (and of which
        pass it is), so that a resumed run draws what the interrupted one would have drawn.
    folder: where training checkpoints live, every `save_every` steps; seen by all processes, written by the first.
    precision: of matrix products; fp16 scales the loss, and waits for the device once a step to do so.
    ema_decay: if given, the trained weights end as their exponential moving average.
    max_norm: gradient clipping.
    log: (steps done, figures averaged since the last call and over processes), every `log_every` steps.
    """

    model: nn.Module
    optimizer: Optimizer
    learning_rate: LearningRate
    total_steps: int
    forward: Callable[[int], StepResult]
    folder: Path
    save_every: int
    log: Callable[[int, Mapping[str, float]], None]
    passes: int = 1
    precision: Precision = "fp32"
    ema_decay: float | None = None
    log_every: int = 20
    max_norm: float = 1.0

    def __post_init__(self) -> None:
        self._parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        self._device = self._parameters[0].device
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self.precision == "fp16")
        decay = self.ema_decay
        self._average = None if decay is None else AveragedWeights(self._parameters, decay)
        # Figures of the steps since the last log point; part of a checkpoint, so that curves resume, too.
        self._recent: list[Mapping[str, Tensor]] = []
        self._unchecked: list[_StepLoss] = []

    def restore(self) -> int:
        """Go back to the last checkpoint, if there is one; returns the number of steps done."""
        restored = restore_training_state(self.folder, self.model, self.optimizer)
        if restored is None:
            return 0
        step, extra = restored
        print(f"going on after step {step} of {self.total_steps}", file=sys.stderr)
        self._recent[:] = extra["recent"]
        self._scaler.load_state_dict(extra["scaler"])
        if self._average is not None:
            self._average.restore(extra["average"])
        return step

    def run(self, first_step: int, progress: ProgressBar) -> None:
        """Train from `first_step` (what `restore` gave) to the end; `progress` advances one a step.

        Raises NonFiniteLossError; checkpoints are from before.
        """
        for step in range(first_step, self.total_steps):
            self._recent.append(self._step(step))
            done = step + 1
            if done % self.log_every == 0 or done == self.total_steps:
                self.log(done, _means(self._recent))
                self._recent.clear()
            if done % self.save_every == 0 or done == self.total_steps:
                self._check_losses()
                self._save(done)
            progress.update(1)
        if self._average is not None:
            self._average.apply()

    def _step(self, step: int) -> Mapping[str, Tensor]:
        set_learning_rate(self.optimizer, self.learning_rate.at(step, self.total_steps))
        self.optimizer.zero_grad(set_to_none=True)
        results = [self._pass(step) for _ in range(self.passes)]
        average_gradients(self._parameters)
        self._scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.max_norm)
        self._check_losses()
        self._unchecked.append(_StepLoss(step, results))
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update(step)
        for result in results:
            result.after_update()
        figures = _stacked_means(
            [{"loss": result.loss.detach(), **_detached(result.figures)} for result in results]
        )
        return {"gradient_norm": norm, **figures}

    def _pass(self, step: int) -> StepResult:
        with autocast(self.precision, self._device):
            result = self.forward(step)
        self._scaler.scale(result.loss / self.passes).backward()
        return result

    def _check_losses(self) -> None:
        for loss in self._unchecked:
            loss.check()
        self._unchecked.clear()

    def _save(self, done: int) -> None:
        recent = _over_processes(self._recent)
        if process_rank() > 0:
            return
        extra = {"recent": recent, "scaler": self._scaler.state_dict()}
        if self._average is not None:
            extra["average"] = self._average.values
        save_training_state(self.folder, done, self.model, self.optimizer, extra)


class _StepLoss:
    """The loss of one step on its way from the device: of this process, and the mean of all."""

    def __init__(self, step: int, results: Sequence[StepResult]) -> None:
        self._step = step
        self._samples = [sample for result in results for sample in result.samples]
        own = torch.stack([result.loss.detach() for result in results]).mean()
        both = torch.stack([own, mean_over_processes(own)])
        self._copied = both.to("cpu", non_blocking=True)
        self._arrival = torch.cuda.current_stream().record_event() if both.is_cuda else None

    def check(self) -> None:
        """Raises NonFiniteLossError."""
        if self._arrival is not None:
            self._arrival.synchronize()
        own, mean = self._copied.tolist()
        if not math.isfinite(own):
            samples = ", ".join(self._samples)
            raise NonFiniteLossError(f"loss is {own} at step {self._step}; samples of the batch: {samples}")
        if not math.isfinite(mean):
            raise NonFiniteLossError(
                f"loss at step {self._step} is {mean} in another process, which says more"
            )


def _detached(figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in figures.items()}


def _stacked_means(points: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each figure over the points that have it; stays on the device."""
    names = dict.fromkeys(name for point in points for name in point)
    return {name: torch.stack([point[name] for point in points if name in point]).mean() for name in names}


def _over_processes(points: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The points with each figure averaged over processes, so that a run of other processes can go on with them."""
    if not points:
        return []
    values = iter(mean_over_processes(torch.stack([value for point in points for value in point.values()])))
    return [{name: next(values) for name in point} for point in points]


def _means(points: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    means = _stacked_means(points)
    values = mean_over_processes(torch.stack(list(means.values())))
    return dict(zip(means, values.tolist(), strict=True))
