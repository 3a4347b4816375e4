"""Exponential moving average of the trained weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights:
    """Average over about the last 1 / (1 - decay) steps, kept in float32 beside the trained parameters."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = decay
        self.values: list[Tensor] = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step `step` (from 0); early steps count more, as there are few."""
        decay = min(self._decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self.values, self._parameters, None)

    def restore(self, values: Sequence[Tensor]) -> None:
        """Go on from the `values` of a checkpoint."""
        for own, stored in zip(self.values, values, strict=True):
            own.copy_(stored)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the averages in the place of the parameters."""
        for parameter, average in zip(self._parameters, self.values, strict=True):
            parameter.copy_(average)
