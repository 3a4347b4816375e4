"""The published loss of stage 1, from its description: edge-weighted squared error and an edge loss.

Of probabilities, with an edge kernel that sums to -3 as published; `with_idle_terms` adds the two terms that
the published loss computes at weight 0 (cross-entropy of the sigmoid of a sigmoid, Dice over the batch).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE_FACTOR = 4.0
EDGE_WEIGHT = 0.2
EDGE_KERNEL = ((-1.0, -1.0, -1.0), (-1.0, 5.0, -1.0), (-1.0, -1.0, -1.0))


def published_loss(logits: Tensor, masks: Tensor, with_idle_terms: bool = False) -> Tensor:
    """(B, M, M) x (B, M, M) in 0..1 -> scalar."""
    probabilities, target = logits.sigmoid().unsqueeze(1), masks.unsqueeze(1)
    kernel = torch.tensor(EDGE_KERNEL, device=logits.device).view(1, 1, 3, 3)
    target_edges = F.conv2d(target, kernel, padding=1)
    edges = F.conv2d(probabilities, kernel, padding=1)
    weights = 1 + EDGE_FACTOR * (target_edges != 0)
    loss = (weights * (probabilities - target).square()).mean()
    loss = loss + EDGE_WEIGHT * F.mse_loss(edges, target_edges)
    return loss + _idle_terms(probabilities, target) if with_idle_terms else loss


def _idle_terms(probabilities: Tensor, target: Tensor) -> Tensor:
    twice = probabilities.sigmoid()
    dice = 1 - (2 * (twice * target).sum() + 1) / (twice.sum() + target.sum() + 1)
    return 0.0 * (F.binary_cross_entropy(twice, target) + dice)
