"""Segmentation measures on boolean masks.

Mask arguments are numpy arrays of type bool, shape (H, W), prediction and ground truth of equal size;
all results are floats in 0..1. Definitions:

- IoU, boundary IoU: Cheng et al., "Boundary IoU", CVPR 2021 (boundary = pixels within 2 % of the image
  diagonal of the contour, inside the mask).
- gIoU, cIoU, N-acc, T-acc: Liu et al., "GRES: Generalized Referring Expression Segmentation", CVPR 2023.
- Two empty masks have IoU 1 (the no-target rule of GRES); one empty mask alone gives 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

Mask = npt.NDArray[np.bool_]

BOUNDARY_DILATION_RATIO = 0.02


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Pixel counts of one (prediction, ground truth) pair; all that the measures below need."""

    intersection: int
    union: int
    predicted_area: int
    target_area: int

    @property
    def iou(self) -> float:
        return self.intersection / self.union if self.union else 1.0


def counted(mask: Mask, ignore: Mask | None) -> Mask:
    """The mask without the pixels that count neither way; whatever is said of those changes nothing."""
    return mask if ignore is None else mask & ~ignore


def overlap(prediction: Mask, target: Mask, ignore: Mask | None = None) -> Overlap:
    """Count the pixels of one pair, leaving out those of `ignore`.

    Raises ValueError for other types or unequal shapes.
    """
    for name, mask in (("prediction", prediction), ("target", target)):
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise ValueError(f"{name} must be a boolean (H, W) array, got {mask.dtype} {mask.shape}")
    if prediction.shape != target.shape:
        raise ValueError(f"prediction is {prediction.shape}, target is {target.shape}")
    prediction, target = counted(prediction, ignore), counted(target, ignore)
    return Overlap(
        intersection=int(np.count_nonzero(prediction & target)),
        union=int(np.count_nonzero(prediction | target)),
        predicted_area=int(np.count_nonzero(prediction)),
        target_area=int(np.count_nonzero(target)),
    )


def iou(prediction: Mask, target: Mask) -> float:
    """Intersection over union; 1 when both are empty."""
    return overlap(prediction, target).iou


def boundary(mask: Mask, dilation_ratio: float = BOUNDARY_DILATION_RATIO) -> Mask:
    """Pixels of `mask` within `dilation_ratio` of the image diagonal of its contour (at least 1 px).

    The image border counts as contour where the mask touches it, as in the published definition.
    """
    height, width = mask.shape
    size = 2 * boundary_reach(height, width, dilation_ratio) + 1
    eroded = ndimage.minimum_filter(mask.astype(np.uint8), size=size, mode="constant", cval=0)
    return mask & (eroded == 0)


def boundary_reach(height: int, width: int, dilation_ratio: float = BOUNDARY_DILATION_RATIO) -> int:
    """How far from the contour the boundary region of an image of this size goes, in pixels."""
    return max(1, round(dilation_ratio * math.hypot(height, width)))


def boundary_iou(prediction: Mask, target: Mask, dilation_ratio: float = BOUNDARY_DILATION_RATIO) -> float:
    """IoU of the two boundary regions (Boundary IoU, CVPR 2021, eq. 2)."""
    return iou(boundary(prediction, dilation_ratio), boundary(target, dilation_ratio))


def giou(overlaps: Sequence[Overlap]) -> float:
    """Mean IoU over samples; a no-target sample scores 1 when nothing is predicted, else 0 (GRES)."""
    _require_some(overlaps)
    return float(np.mean([pair.iou for pair in overlaps]))


def ciou(overlaps: Sequence[Overlap]) -> float:
    """Summed intersection over summed union; 1 when all masks are empty (GRES)."""
    _require_some(overlaps)
    union = sum(pair.union for pair in overlaps)
    return sum(pair.intersection for pair in overlaps) / union if union else 1.0


def n_acc(overlaps: Sequence[Overlap]) -> float:
    """Share of no-target samples for which nothing is predicted (GRES); NaN where there are none."""
    no_target = [pair for pair in overlaps if pair.target_area == 0]
    return float(np.mean([pair.predicted_area == 0 for pair in no_target])) if no_target else float("nan")


def t_acc(overlaps: Sequence[Overlap]) -> float:
    """Share of samples with a target for which something is predicted (GRES); NaN where there are none."""
    with_target = [pair for pair in overlaps if pair.target_area > 0]
    return float(np.mean([pair.predicted_area > 0 for pair in with_target])) if with_target else float("nan")


def batch_iou(predictions: Tensor, targets: Tensor) -> Tensor:
    """IoU of each pair of boolean masks, (..., H, W) x (..., H, W) broadcast -> (...) float32."""
    intersection = (predictions & targets).sum((-2, -1)).float()
    union = (predictions | targets).sum((-2, -1)).float()
    return torch.where(union > 0, intersection / union.clamp(min=1), torch.ones_like(union))


def batch_boundary(masks: Tensor, dilation_ratio: float = BOUNDARY_DILATION_RATIO) -> Tensor:
    """`boundary` of boolean masks (..., H, W), which may lie on any device."""
    reach = boundary_reach(masks.shape[-2], masks.shape[-1], dilation_ratio)
    outside = F.pad((~masks).float().flatten(0, -3).unsqueeze(1), [reach] * 4, value=1.0)
    near_outside = F.max_pool2d(outside, 2 * reach + 1, stride=1).squeeze(1) > 0
    return masks & near_outside.view_as(masks)


def _require_some(overlaps: Sequence[Overlap]) -> None:
    if not overlaps:
        raise ValueError("no samples to average")
