"""Muon for the weight matrices of small transformers, AdamW for everything else, as one optimizer.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the update is scaled to the
size of an AdamW step (Liu et al., "Muon is scalable for LLM training", 2025, §2.2), so one learning rate
serves both. `torch.optim.Muon` iterates in bfloat16, which CPUs without native bfloat16 compute hundreds of
times slower than this float32 version.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
_BETAS = (0.9, 0.98)
_EPSILON = 1e-8
_STEP_SIZE = 0.2  # root mean square of an AdamW update


class Muon(Optimizer):
    """Trains the parameters of `model` that require gradients. Weight decay (decoupled): matrices only."""

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        rate_scales: Mapping[nn.Module, float] | None = None,
    ) -> None:
        """rate_scales: parts of the model -> factor on their learning rate (1 elsewhere)."""
        linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
        linear -= {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        scale_of = {id(p): scale for part, scale in (rate_scales or {}).items() for p in part.parameters()}
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for parameter in model.parameters():
            if parameter.requires_grad:
                kind = (id(parameter) in linear, scale_of.get(id(parameter), 1.0))
                groups.setdefault(kind, []).append(parameter)
        super().__init__(
            [
                {
                    "params": parameters,
                    "is_matrix": is_matrix,
                    "rate_scale": scale,
                    "weight_decay": weight_decay if is_matrix else 0.0,
                }
                for (is_matrix, scale), parameters in groups.items()
            ],
            {"lr": lr},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = self._matrix_update if group["is_matrix"] else self._adam_update
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update(parameter, parameter.grad), alpha=-group["lr"])

    def _matrix_update(self, matrix: Tensor, gradient: Tensor) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        momentum = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        return orthogonalised(gradient.lerp(momentum, _MOMENTUM)) * (_STEP_SIZE * max(matrix.shape) ** 0.5)

    def _adam_update(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - _BETAS[0])
        square = state["square"].lerp_(gradient.square(), 1 - _BETAS[1])
        mean_scale, square_scale = (1 - beta ** state["step"] for beta in _BETAS)
        return (mean / mean_scale) / ((square / square_scale).sqrt() + _EPSILON)


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix with its singular values pulled to about 1 (five Newton-Schulz iterations), float32."""
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    result = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = result @ result.T
        result = torch.addmm(result, torch.addmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return result if matrix.shape[0] <= matrix.shape[1] else result.T
