"""Referring data as a kind of data set: expressions, each with the masks of what it means."""

from collections import defaultdict

from alto_models import masks as mask_arithmetic
from alto_models.masks import Rle
from data_contracts.referring import REFERRING_CONTRACT
from data_contracts.schemas import REFERRING_SCHEMA
from jobs.formats.alto_jsonl import open_alto_jsonl
from jobs.formats.coco import open_coco_instances
from jobs.formats.multi_class import open_multi_class
from jobs.formats.psalm import open_psalm
from jobs.formats.raw import visible
from jobs.formats.reason_seg import open_reason_seg
from jobs.formats.refcocom import open_refcocom
from jobs.formats.refer import open_grefcoco, open_refer
from jobs.preparation.kind import MASK_PANELS, Kind
from jobs.preparation.measuring import MeasuredImage, MeasuredRow
from jobs.preparation.rows import Row, geometry, image_fields, split_of, stored_rle


def _shard_rows(
    image: MeasuredImage, rows: list[MeasuredRow], source: str, held_out_share: float
) -> list[Row]:
    """Rows of REFERRING_SCHEMA of an image with these accepted records: one for each split among them."""
    records_of_split: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        records_of_split[split_of(image, row, held_out_share)].append(_record(row))
    return [
        image_fields(image, source, split) | {"records": records}
        for split, records in records_of_split.items()
    ]


def _record(row: MeasuredRow) -> Row:
    merged = _merged([stored_rle(mask) for mask in row.masks])
    instances = [
        geometry(mask) | {"instance_id": mask.raw.mask_id, "category": mask.raw.category}
        for mask in row.masks
    ]
    return {
        "record_id": row.raw.row_id,
        "expressions": [visible(expression) for expression in row.raw.expressions],
        "no_target": row.raw.no_target,
        "instances": instances,
        "ignore": row.raw.ignore.counts if row.raw.ignore else None,
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


REFERRING = Kind(
    row="record",
    schema=REFERRING_SCHEMA,
    contract=REFERRING_CONTRACT,
    formats={
        "refer": open_refer,
        "grefcoco": open_grefcoco,
        "alto_jsonl": open_alto_jsonl,
        "coco_instances": open_coco_instances,
        "psalm": open_psalm,
        "reason_seg": open_reason_seg,
        "refcocom": open_refcocom,
        "multi_class": open_multi_class,
    },
    rows_unique_across_images=True,
    shard_rows=_shard_rows,
    panels=(*MASK_PANELS, ("longest_expression", "longest expression (characters)")),
)
