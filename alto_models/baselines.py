"""What can be had without reading the expression: the bar every learned result has to clear.

All of them are given more than a model gets (the benchmark's own masks), so they err on the high side.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = 64


def best_constant_mask(masks_NSS: NDArray[np.bool_]) -> NDArray[np.bool_]:  # noqa: N803
    """One mask for every question: the mean of the masks, cut where its mean IoU with them is highest.

    masks_NSS: true masks of the questions that have one, each stretched to S x S; N may be 0.
    Returns (S, S) bool. The threshold is chosen on the very masks it is scored on.
    """
    if not len(masks_NSS):
        return np.zeros(masks_NSS.shape[1:], dtype=bool)
    flat_NP = masks_NSS.reshape(len(masks_NSS), -1).astype(np.float32)  # noqa: N806
    mean_P = flat_NP.mean(0)  # noqa: N806
    area_N = flat_NP.sum(1)  # noqa: N806
    candidates = np.unique(np.quantile(mean_P[mean_P > 0], np.linspace(0, 1, THRESHOLDS), method="nearest"))

    def mean_iou(threshold: np.float32) -> float:
        constant_P = mean_P >= threshold  # noqa: N806
        overlap_N = flat_NP @ constant_P.astype(np.float32)  # noqa: N806
        return float((overlap_N / (area_N + constant_P.sum() - overlap_N)).mean())

    best = max(candidates, key=mean_iou)
    return (mean_P >= best).reshape(masks_NSS.shape[1:])


def largest_object(areas: Sequence[int]) -> int:
    """Index of the largest object; of equals, the first."""
    return int(np.argmax(areas))


def random_object(count: int, generator: np.random.Generator) -> int:
    """Index of one of `count` objects, each as likely."""
    return int(generator.integers(count))
