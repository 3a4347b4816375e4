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


def edge_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean squared difference of the edges of prediction and mask: (B, M, M) x (B, M, M) -> (B,).

    Edges are the Laplacian of the probabilities (centre less its eight neighbours' mean), 0 wherever a surface is flat.
    """
    difference = at_least_float32(logits).sigmoid() - masks
    padded = F.pad(difference.unsqueeze(1), [1, 1, 1, 1], mode="replicate").squeeze(1)
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    nine_cells = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return (difference * (9 / 8) - nine_cells / 8).square().mean((1, 2))
