"""What the training loop leaves to an engine: gradients, updates, and the state to resume from."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alto_models.training.averaging import AveragedWeights
from alto_models.training.precision import Precision, autocast
from alto_models.training.processes import average_gradients, process_rank
from alto_models.training.resume import restore_training_state, save_training_state

Figures = Mapping[str, Tensor]


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
    figures: Figures = field(default_factory=dict)
    after_update: Callable[[], None] = lambda: None


class Engine(Protocol):
    """Every method is called by all processes, in the same order."""

    @property
    def optimizer(self) -> Any:
        """Its `param_groups` hold the learning rates."""

    def run_pass(self, step: int) -> StepResult:
        """Forward and backward of one of the step's passes; gradients of all passes and processes are averaged."""

    def update(self, step: int) -> Tensor:
        """Clip the gradients and move the weights; returns the gradients' norm before."""

    def save(self, done: int, recent: Sequence[Figures]) -> None:
        """Replace the training checkpoint. A kill at any time leaves the old one or the new one."""

    def restore(self) -> tuple[int, list[Figures]] | None:
        """(steps done, recent figures) of the training checkpoint, now in use; None where there is none."""

    def whole_weights(self) -> AbstractContextManager[None]:
        """Inside, the model can be used without training it; all processes make the same calls."""

    def stored(self, parameter: nn.Parameter) -> Tensor:
        """What of a parameter's values this process keeps between steps; `whole_weights` are made of it."""

    def finish(self) -> None:
        """Leave the final weights, in float32 and whole, in the model of every process."""


class PlainEngine:
    """Whole model and optimizer state in every process; gradients are averaged over processes."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        forward: Callable[[int], StepResult],
        *,
        folder: Path,
        passes: int,
        precision: Precision,
        max_norm: float,
        ema_decay: float | None,
    ) -> None:
        self.optimizer = optimizer
        self._model = model
        self._forward = forward
        self._folder = folder
        self._passes = passes
        self._precision = precision
        self._max_norm = max_norm
        self._parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self._device = self._parameters[0].device
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "fp16")
        self._average = None if ema_decay is None else AveragedWeights(self._parameters, ema_decay)

    def run_pass(self, step: int) -> StepResult:
        with autocast(self._precision, self._device):
            result = self._forward(step)
        self._scaler.scale(result.loss / self._passes).backward()
        return result

    def update(self, step: int) -> Tensor:
        average_gradients(self._parameters)
        self._scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._max_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update(step)
        return norm

    def save(self, done: int, recent: Sequence[Figures]) -> None:
        if process_rank() > 0:
            return
        extra = {"recent": list(recent), "scaler": self._scaler.state_dict()}
        if self._average is not None:
            extra["average"] = self._average.values
        save_training_state(self._folder, done, self._model, self.optimizer, extra)

    def restore(self) -> tuple[int, list[Figures]] | None:
        restored = restore_training_state(self._folder, self._model, self.optimizer)
        if restored is None:
            return None
        done, extra = restored
        self._scaler.load_state_dict(extra["scaler"])
        if self._average is not None:
            self._average.restore(extra["average"])
        return done, extra["recent"]

    def whole_weights(self) -> AbstractContextManager[None]:
        return nullcontext()

    def stored(self, parameter: nn.Parameter) -> Tensor:
        return parameter

    def finish(self) -> None:
        if self._average is not None:
            self._average.apply()
