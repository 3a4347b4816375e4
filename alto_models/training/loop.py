"""The training loop of every stage: a step that reads top to bottom, exact resume, a clear stop.

A step never waits for the device: figures stay tensors until a log point, and a loss is looked at one step
late, in time for no checkpoint to hold what a bad one has done.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alto_models.training.engine import Engine, PlainEngine
from alto_models.training.engine import StepResult as StepResult
from alto_models.training.precision import Precision
from alto_models.training.processes import mean_over_processes
from alto_models.training.schedule import LearningRate, set_learning_rate
from alto_models.training.stopping import AgreedStop
from data_contracts.errors import JobStopped


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the message names the step and the samples of its batch."""


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
    deepspeed: path of the JSON file for training on DeepSpeed's ZeRO, None for whole weights in every process.
    ema_decay: if given, the trained weights end as their exponential moving average.
    max_norm: gradient clipping.
    prepare: called with the step index before its passes, outside of any; the model can be used there, inside
        `whole_weights`.
    stop: whether this process was asked to stop: then all of them save a checkpoint and end.
    resumable_every: only after a multiple of so many steps can a checkpoint be gone on from; divides `save_every`.
    log: (steps done, figures averaged since the last call and over processes), every `log_every` steps;
        the model can be used there.
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
    deepspeed: Path | None = None
    ema_decay: float | None = None
    log_every: int = 20
    max_norm: float = 1.0
    prepare: Callable[[int], None] = lambda step: None
    stop: Callable[[], bool] = lambda: False
    resumable_every: int = 1

    def __post_init__(self) -> None:
        self._engine = self._start_engine()
        self._agreed_stop = AgreedStop(self.stop)
        # Figures of the steps since the last log point; part of a checkpoint, so that curves resume, too.
        self._recent: list[Mapping[str, Tensor]] = []
        self._unchecked: list[_StepLoss] = []

    def _start_engine(self) -> Engine:
        if self.deepspeed is None:
            return PlainEngine(
                self.model,
                self.optimizer,
                self.forward,
                folder=self.folder,
                passes=self.passes,
                precision=self.precision,
                max_norm=self.max_norm,
                ema_decay=self.ema_decay,
            )
        from alto_models.training.zero import ZeroEngine

        if self.ema_decay is not None:
            raise ValueError("averaged weights are kept whole, beside whole weights: not with DeepSpeed")
        return ZeroEngine(
            self.model,
            self.optimizer,
            self.forward,
            settings=self.deepspeed,
            folder=self.folder,
            passes=self.passes,
            precision=self.precision,
            max_norm=self.max_norm,
        )

    def whole_weights(self) -> AbstractContextManager[None]:
        """Inside, the model can be used without training it; all processes make the same calls."""
        return self._engine.whole_weights()

    def stored(self, parameter: nn.Parameter) -> Tensor:
        """What of a parameter's values this process keeps between steps: all, or its share of them."""
        return self._engine.stored(parameter)

    def restore(self) -> int:
        """Go back to the last checkpoint, if there is one; returns the number of steps done."""
        restored = self._engine.restore()
        if restored is None:
            return 0
        step, self._recent[:] = restored
        print(f"going on after step {step} of {self.total_steps}", file=sys.stderr)
        return step

    def run(self, first_step: int, progress: ProgressBar) -> None:
        """Train from `first_step` (what `restore` gave) to the end; `progress` advances one a step.

        Raises NonFiniteLossError; checkpoints are from before. Raises JobStopped after saving one.
        """
        for step in range(first_step, self.total_steps):
            self._recent.append(self._step(step))
            done = step + 1
            last = done == self.total_steps
            if done % self.log_every == 0 or last:
                figures = _means(self._recent)
                with self._engine.whole_weights():
                    self.log(done, figures)
                self._recent.clear()
            stop = done % self.resumable_every == 0 and not last and self._agreed_stop()
            if done % self.save_every == 0 or last or stop:
                self._check_losses()
                self._engine.save(done, _over_processes(self._recent))
            progress.update(1)
            if stop:
                raise JobStopped(f"asked to stop: checkpoint saved after step {done} of {self.total_steps}")
        self._engine.finish()

    def _step(self, step: int) -> Mapping[str, Tensor]:
        set_learning_rate(self._engine.optimizer, self.learning_rate.at(step, self.total_steps))
        self.prepare(step)
        results = [self._engine.run_pass(step) for _ in range(self.passes)]
        self._check_losses()
        self._unchecked.append(_StepLoss(step, results))
        norm = self._engine.update(step)
        for result in results:
            result.after_update()
        figures = _stacked_means(
            [{"loss": result.loss.detach(), **_detached(result.figures)} for result in results]
        )
        return {"gradient_norm": norm, **figures}

    def _check_losses(self) -> None:
        for loss in self._unchecked:
            loss.check()
        self._unchecked.clear()


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
