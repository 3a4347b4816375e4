"""Referring-segmentation metrics as ratios of sums over samples.

Definitions follow the official gRefCOCO scorer (GRES, arXiv 2306.00968, `evaluation/refer_evaluation.py` of ReLA), of
which RefCOCO's (REFER; LAVT's `test.py`) is the case without no-target samples:

- IoU of a no-target sample is 1 when nothing is predicted, else 0; gIoU is the mean IoU of all samples.
- cIoU is summed intersection over summed union; a mask predicted for a no-target sample adds to the union, and what is
  missed or left out does, too. REFER calls it overall IoU.
- N-acc: share of no-target samples for which nothing is predicted. T-acc: share of the others with a mask.
- P@k: share of samples with a target whose IoU reaches k (>= k). mIoU: mean IoU of samples with a target.
- Ignored pixels are in neither prediction nor truth; a target that lies wholly in them has IoU 1 where nothing else is
  predicted, as in ReasonSeg's scorer (LISA, `intersectionAndUnionGPU` with `ignore_index`, union 0 counts as 1).
- Boundary IoU (Cheng et al., CVPR 2021): mean over samples with a target.

Ours, as no official scorer knows them: mean length is of answers with a mask, in codes; bits are that times log2 of the
codebook's size. A malformed answer (one that cannot be decoded) counts as a miss everywhere: IoU 0, and never as a
statement that there is no target.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Ratio = tuple[NDArray[np.float64], NDArray[np.float64]]

PRECISION_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class SampleScores:
    """One entry a sample (image, expression), N of them.

    empty: the predicted mask has no pixel. intersection, union: pixels, of the original image.
    boundary_iou: 0..1, read only where there is a target. length: kept codes, 0 for an answer without.
    """

    no_target: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    malformed: NDArray[np.bool_]
    intersection: NDArray[np.int64]
    union: NDArray[np.int64]
    boundary_iou: NDArray[np.float64]
    length: NDArray[np.int64]

    def __getitem__(self, selection: NDArray[np.bool_] | NDArray[np.int64]) -> "SampleScores":
        return SampleScores(**{field.name: getattr(self, field.name)[selection] for field in fields(self)})

    @property
    def predicted_nothing(self) -> NDArray[np.bool_]:
        return self.empty & ~self.malformed

    @property
    def iou(self) -> NDArray[np.float64]:
        overlap = np.divide(self.intersection, self.union, out=np.ones(len(self.union)), where=self.union > 0)
        return np.where(self.malformed, 0.0, overlap)


def metric_ratios(scores: SampleScores) -> dict[str, Ratio]:
    """Metric name -> (numerator, denominator) of each sample; the metric is the ratio of their sums."""
    target = ~scores.no_target
    has_codes = scores.length > 0
    everyone = np.ones(len(target))
    ratios: dict[str, tuple[NDArray, NDArray]] = {
        "giou": (scores.iou, everyone),
        "ciou": (scores.intersection, scores.union),
        "miou": (scores.iou * target, target),
        "n_acc": (scores.no_target & scores.predicted_nothing, scores.no_target),
        "t_acc": (target & ~scores.empty, target),
        "boundary_iou": (np.where(target, scores.boundary_iou, 0.0), target),
        "mean_length": (scores.length * has_codes, has_codes),
        "malformed": (scores.malformed, everyone),
    }
    for level in PRECISION_LEVELS:
        ratios[f"precision_{level}"] = (target & (scores.iou >= level), target)
    return {
        name: (above.astype(np.float64), below.astype(np.float64)) for name, (above, below) in ratios.items()
    }
