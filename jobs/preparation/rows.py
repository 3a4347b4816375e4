"""Rows of the shards from measured images."""

import hashlib
from collections import defaultdict
from typing import Any

from alto_models import masks as mask_arithmetic
from alto_models.masks import Rle
from jobs.preparation.measuring import MeasuredImage, MeasuredMask, MeasuredRow

Row = dict[str, Any]


def split_by_hash(image_id: str, held_out_share: float) -> str:
    """ "held_out" for that share of all ids, for ever the same ones, else "train"."""
    place = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") / 2**64
    return "held_out" if place < held_out_share else "train"


def split_of(image: MeasuredImage, row: MeasuredRow, held_out_share: float) -> str:
    """The publisher's split, else one by hash."""
    return row.raw.split or split_by_hash(image.raw.image_id, held_out_share)


def masks_rows(
    image: MeasuredImage, rows: list[MeasuredRow], source: str, held_out_share: float
) -> list[Row]:
    """The row of MASKS_SCHEMA of an image with these accepted masks."""
    masks = [
        _geometry(mask)
        | {
            "mask_id": mask.raw.mask_id,
            "boundary_length": mask.values["boundary_length"],
            "predicted_iou": mask.raw.predicted_iou,
            "stability_score": mask.raw.stability_score,
        }
        for row in rows
        for mask in row.masks
    ]
    split = split_by_hash(image.raw.image_id, held_out_share)
    return [_image_fields(image, source, split) | {"masks": masks}]


def referring_rows(
    image: MeasuredImage, rows: list[MeasuredRow], source: str, held_out_share: float
) -> list[Row]:
    """Rows of REFERRING_SCHEMA of an image with these accepted records: one for each split among them."""
    records_of_split: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        records_of_split[split_of(image, row, held_out_share)].append(_record(row))
    return [
        _image_fields(image, source, split) | {"records": records}
        for split, records in records_of_split.items()
    ]


def _record(row: MeasuredRow) -> Row:
    merged = _merged([mask.rle for mask in row.masks if mask.rle is not None])
    instances = [
        _geometry(mask) | {"instance_id": mask.raw.mask_id, "category": mask.raw.category}
        for mask in row.masks
    ]
    return {
        "record_id": row.raw.row_id,
        "expressions": [expression.strip() for expression in row.raw.expressions],
        "no_target": row.raw.no_target,
        "instances": instances,
        **merged,
    }


def _merged(rles: list[Rle]) -> Row:
    if not rles:
        return {"counts": None, "area": 0, "boundary_length": 0}
    union = mask_arithmetic.union(rles)
    runs = mask_arithmetic.parse_counts(union.counts)
    return {
        "counts": union.counts,
        "area": mask_arithmetic.area(runs),
        "boundary_length": mask_arithmetic.boundary_length(runs, union.height),
    }


def _geometry(mask: MeasuredMask) -> Row:
    values = mask.values
    return {
        "counts": mask.rle.counts if mask.rle else "",
        "box": [values["box_x"], values["box_y"], values["box_width"], values["box_height"]],
        "area": values["area"],
    }


def _image_fields(image: MeasuredImage, source: str, split: str) -> Row:
    width, height = image.size or (0, 0)
    return {
        "image_id": image.raw.image_id,
        "source": source,
        "split": split,
        "width": width,
        "height": height,
        "image_sha256": hashlib.sha256(image.raw.data).hexdigest(),
        "image": image.raw.data,
    }
