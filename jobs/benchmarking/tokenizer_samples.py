"""The sample table of the mask tokenizer's benchmark: one row a mask, from which every figure can be computed."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alto_models.tokenizer.evaluation import Scores


def schema(baselines: Sequence[str]) -> pa.Schema:
    """baselines: names of answers that each mask is compared with, a column `NAME_iou` each."""
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("view", pa.string(), nullable=False),
            # Of the mask, in pixels.
            pa.field("area", pa.int64(), nullable=False),
            pa.field("boundary_length", pa.int64(), nullable=False),
            # All codes; the first `length` of them are kept, and `iou` and `boundary_iou` are with those.
            pa.field("codes", pa.list_(pa.int32()), nullable=False),
            pa.field("length", pa.int64(), nullable=False),
            pa.field("iou", pa.float32(), nullable=False),
            pa.field("boundary_iou", pa.float32(), nullable=False),
            # With the first 1, 2, … codes.
            pa.field("iou_by_length", pa.list_(pa.float32()), nullable=False),
            pa.field("boundary_iou_by_length", pa.list_(pa.float32()), nullable=False),
            *(pa.field(f"{name}_iou", pa.float32(), nullable=False) for name in baselines),
        ]
    )


def sample_table(scores: Scores, baselines: Mapping[str, NDArray[np.float32]]) -> pa.Table:
    """scores: at every length from 1. baselines: name -> IoU of each mask."""
    columns = {
        "image_id": scores.image_ids,
        "view": scores.kinds,
        "area": scores.area,
        "boundary_length": scores.boundary_length,
        "codes": list(scores.codes.astype(np.int32)),
        "length": scores.predicted,
        "iou": scores.predicted_iou,
        "boundary_iou": scores.predicted_boundary_iou,
        "iou_by_length": list(scores.iou),
        "boundary_iou_by_length": list(scores.boundary_iou),
        **{f"{name}_iou": values for name, values in baselines.items()},
    }
    return pa.table(columns, schema=schema(list(baselines)))


def scores_of(samples: pa.Table) -> Scores:
    """What a sample table of at least one row was made from."""
    iou = _matrix(samples, "iou_by_length")
    return Scores(
        image_ids=samples["image_id"].to_pylist(),
        kinds=samples["view"].to_pylist(),
        lengths=np.arange(1, iou.shape[1] + 1),
        codes=_matrix(samples, "codes").astype(np.int64),
        predicted=samples["length"].to_numpy(),
        iou=iou,
        boundary_iou=_matrix(samples, "boundary_iou_by_length"),
        predicted_iou=samples["iou"].to_numpy(),
        predicted_boundary_iou=samples["boundary_iou"].to_numpy(),
        area=samples["area"].to_numpy(),
        boundary_length=samples["boundary_length"].to_numpy(),
    )


def _matrix(samples: pa.Table, column: str) -> NDArray:
    return np.stack(samples[column].to_numpy())
