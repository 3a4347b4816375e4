"""Reconstruction losses of the mask tokenizer; all on logits, per mask, in float32 at least."""

import torch.nn.functional as F
from torch import Tensor

from alto_models.training.precision import at_least_float32


def bce_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels: (B, M, M) x (B, M, M) in 0..1 -> (B,)."""
    return F.binary_cross_entropy_with_logits(at_least_float32(logits), masks, reduction="none").mean((1, 2))


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice of each mask on its own, smoothed by one pixel: (B, M, M) x (B, M, M) -> (B,).

    An empty mask that is predicted empty costs 0.
    """
    probabilities = at_least_float32(logits).sigmoid()
    shared = (probabilities * masks).sum((1, 2))
    total = probabilities.sum((1, 2)) + masks.sum((1, 2))
    return 1 - (2 * shared + 1) / (total + 1)
