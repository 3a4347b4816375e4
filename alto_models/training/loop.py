"""The training loop of every stage: a step that reads top to bottom, exact resume, a clear stop."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

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


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training run.

    forward: step index (from 0) -> StepResult. Its batch and every random choice must be a pure function
        of the step index, so that a resumed run draws what the interrupted one would have drawn.
    folder: where training checkpoints live, every `save_every` steps.
    max_norm: gradient clipping.
    log: (steps done, figures averaged since the last call), every `log_every` steps.
    """

    model: nn.Module
    optimizer: Optimizer
    learning_rate: LearningRate
    total_steps: int
    forward: Callable[[int], StepResult]
    folder: Path
    save_every: int
    log: Callable[[int, Mapping[str, float]], None]
    log_every: int = 20
    max_norm: float = 1.0

    # Figures of the steps since the last log point; part of a checkpoint, so that curves resume, too.
    _recent: list[Mapping[str, Tensor]] = field(default_factory=list, init=False)

    def restore(self) -> int:
        """Go back to the last checkpoint, if there is one; returns the number of steps done."""
        restored = restore_training_state(self.folder, self.model, self.optimizer)
        if restored is None:
            return 0
        step, extra = restored
        print(f"going on after step {step} of {self.total_steps}", file=sys.stderr)
        self._recent[:] = extra["recent"]
        return step

    def run(self, first_step: int, progress: ProgressBar) -> None:
        """Train from `first_step` (what `restore` gave) to the end; `progress` advances one a step.

        Raises NonFiniteLossError before the optimizer moves.
        """
        for step in range(first_step, self.total_steps):
            self._recent.append(self._step(step))
            done = step + 1
            if done % self.log_every == 0 or done == self.total_steps:
                self.log(done, _means(self._recent))
                self._recent.clear()
            if done % self.save_every == 0 or done == self.total_steps:
                extra = {"recent": [dict(figures) for figures in self._recent]}
                save_training_state(self.folder, done, self.model, self.optimizer, extra)
            progress.update(1)

    def _step(self, step: int) -> Mapping[str, Tensor]:
        set_learning_rate(self.optimizer, self.learning_rate.at(step, self.total_steps))
        result = self.forward(step)
        if not math.isfinite(result.loss.item()):
            raise NonFiniteLossError(
                f"loss is {result.loss.item()} at step {step}; samples of the batch: {', '.join(result.samples)}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters(), self.max_norm)
        self.optimizer.step()
        result.after_update()
        figures = {name: value.detach() for name, value in result.figures.items()}
        return {"loss": result.loss.detach(), "gradient_norm": norm, **figures}

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def _means(points: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    names = dict.fromkeys(name for point in points for name in point)
    return {
        name: torch.stack([point[name] for point in points if name in point]).mean().item() for name in names
    }
