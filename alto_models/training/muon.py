"""Muon: orthogonalised momentum for weight matrices, AdamW for everything else.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the scale of
updates follows J. Liu et al., "Muon is scalable for LLM training" (2025), which lets one learning rate
serve both kinds of parameters. `torch.optim.Muon` always orthogonalises in bfloat16, which is hundreds of times
slower than float32 on processors without bfloat16 arithmetic, and differs from machine to machine there.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic that drives singular values towards 1 (Jordan et al.)
NEWTON_SCHULZ_STEPS = 5
RMS_OF_ADAMW = 0.2  # typical size of an AdamW update (Liu et al., section 2.2)


class Muon(torch.optim.AdamW):
    """AdamW in which parameter groups with `"matrices": True` are updated by Muon.

    A parameter of such a group is taken as one matrix (first dimension, all others).
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float = 0.95, **adamw: Any) -> None:
        super().__init__([{"matrices": False, "momentum": momentum, **group} for group in groups], **adamw)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; a Muon parameter's gradient is used up (set to None)."""
        for group in self.param_groups:
            if group["matrices"]:
                self._step_matrices(group)
        return super().step(closure)

    def _step_matrices(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        by_shape = sorted(parameters, key=_matrix_shape)
        for shape, same in groupby(by_shape, key=_matrix_shape):
            alike = list(same)
            momenta = torch.stack([self._momentum(parameter, group).view(shape) for parameter in alike])
            scale = group["lr"] * RMS_OF_ADAMW * max(shape) ** 0.5
            for parameter, update in zip(alike, orthogonalise(momenta), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-scale)
                parameter.grad = None

    def _momentum(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """Nesterov momentum of the gradient."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # AdamW asks every state it loads for one
        state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        return parameter.grad.lerp(state["momentum"], group["momentum"]).contiguous()


def orthogonalise(matrices: Tensor) -> Tensor:
    """Nearest (semi-)orthogonal matrices, roughly: singular values about 0.7..1.2; (N, R, C) float32.

    On a GPU the products are in bfloat16, as in the method's own code: in float32 they would cost as much as the
    forward and backward passes of a batch of 64 masks at the published size (docs/performance.md).
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x.is_cuda:
        x = x.bfloat16()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(matrices.dtype)


def _matrix_shape(parameter: Tensor) -> tuple[int, int]:
    return parameter.shape[0], parameter[0].numel()
