"""One prediction scored against its truth: a row of the sample table."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alto_models import masks
from alto_models.metrics import boundary, counted, iou, overlap
from jobs.benchmarking.questions import Question

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a system made of a question.

    mask: (H, W) of the original image; None where nothing is predicted (or nothing could be decoded).
    asked: the expression put to the system. answer, codes: what a language model wrote.
    """

    mask: Mask | None
    asked: str
    answer: str = ""
    codes: tuple[int, ...] = ()
    malformed: bool = False


def sample_row(question: Question, prediction: Prediction, system: str, mode: str) -> dict[str, Any]:
    """Row of `SAMPLES_SCHEMA`. A malformed answer scores 0, also where there is no target.

    Pixels to be ignored are taken out of the prediction before anything is measured, its boundary too, so
    that no figure depends on what was predicted there.
    """
    image, record = question.image, question.record
    truth = image.truths[record.record_id]
    predicted = prediction.mask if prediction.mask is not None else np.zeros_like(truth.mask)
    mask = counted(predicted, truth.ignore)
    pair = overlap(mask, truth.mask)
    missed = prediction.malformed or (pair.union > 0 and pair.intersection == 0)
    return {
        "system": system,
        "mode": mode,
        "image_id": image.image_id,
        "record_id": record.record_id,
        "expression_index": question.expression_index,
        "expression": question.expression,
        "asked": prediction.asked,
        "category": record.category,
        "target_objects": len(record.instances) if record.rle is not None else 0,
        "no_target": record.rle is None,
        "width": image.width,
        "height": image.height,
        "target_area": pair.target_area,
        "complexity": record.complexity,
        "answer": prediction.answer,
        "codes": list(prediction.codes),
        "length": len(prediction.codes),
        "malformed": prediction.malformed,
        "predicted_area": pair.predicted_area,
        "intersection": pair.intersection,
        "union": pair.union,
        "iou": 0.0 if missed else pair.iou,
        "boundary_iou": 0.0 if missed else iou(boundary(mask), truth.boundary),
        "target_counts": record.rle.counts if record.rle is not None else None,
        "predicted_counts": masks.encode(predicted).counts if predicted.any() else None,
        "ignore_counts": record.ignore.counts if record.ignore is not None else None,
    }
