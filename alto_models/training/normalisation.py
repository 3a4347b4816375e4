"""Normalisation over all masks of a pass, whichever process holds them."""

import torch
from torch import Tensor, nn

from alto_models.training.precision import at_least_float32
from alto_models.training.processes import process_count, sum_over_processes

MOMENTUM = 0.05  # of the running moments
LEAST_VARIANCE = 1e-6  # as a part of the squared mean


class NormaliseOverMasks(nn.BatchNorm1d):
    """Batch normalisation of features (B, F) without scale and shift, in float32 at least.

    In training mode the moments are those of the masks of all processes, so that the result does not depend
    on how many there are. (`nn.SyncBatchNorm` does this on CUDA devices only.) Evaluation uses running
    moments, which lag behind weights that still move; `average_moments` gathers those of final weights.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False, momentum=MOMENTUM)

    def average_moments(self) -> None:
        """Forget the running moments; from now on they are plain means over the batches of training mode."""
        self.reset_running_stats()
        self.momentum = None

    def forward(self, features: Tensor) -> Tensor:
        features = at_least_float32(features)
        if not self.training or process_count() == 1:
            return super().forward(features)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        mean, centred, variance = _moments(features)
        masks = process_count() * features.shape[0]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            share = 1 / self.num_batches_tracked if self.momentum is None else mean.new_tensor(self.momentum)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (masks / (masks - 1)), share)
        return centred * (variance + self.eps).rsqrt()


def common_part(features: Tensor) -> Tensor:
    """How far what all masks of a pass have in common outweighs what they differ in: mean of log(1 + m² / v).

    features (B, F), of the masks of all processes together; m and v are the mean and variance of each. Their
    quotient ends at 1 / LEAST_VARIANCE, beyond which rounding would decide on the gradient.
    """
    mean, _, variance = _moments(at_least_float32(features))
    square = mean.square()
    floor = LEAST_VARIANCE * square + torch.finfo(square.dtype).tiny
    return torch.log1p(square / (variance + floor)).mean()


def _moments(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (F,), features less the mean (B, F), and variance (F,) over the masks of all processes."""
    masks = process_count() * features.shape[0]
    mean = sum_over_processes(features.sum(0)) / masks
    centred = features - mean
    return mean, centred, sum_over_processes(centred.square().sum(0)) / masks
