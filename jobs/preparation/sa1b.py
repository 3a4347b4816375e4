"""SA-1B as a kind of data set: images with masks of anything."""

from data_contracts.masks import SA1B_CONTRACT
from data_contracts.schemas import MASKS_SCHEMA
from jobs.formats.sa1b import open_sa1b
from jobs.preparation.kind import MASK_PANELS, Kind
from jobs.preparation.measuring import MeasuredImage, MeasuredRow
from jobs.preparation.rows import Row, boundary_length, geometry, image_fields, split_by_hash


def _shard_rows(
    image: MeasuredImage, rows: list[MeasuredRow], source: str, held_out_share: float
) -> list[Row]:
    """The row of MASKS_SCHEMA of an image with these accepted masks."""
    masks = [
        geometry(mask)
        | {
            "mask_id": mask.raw.mask_id,
            "boundary_length": boundary_length(mask),
            "predicted_iou": mask.raw.predicted_iou,
            "stability_score": mask.raw.stability_score,
        }
        for row in rows
        for mask in row.masks
    ]
    fields = image_fields(image, source, split_by_hash(image.raw.image_id, held_out_share))
    largest = max((mask["area"] for mask in masks), default=0)
    share = largest / max(fields["width"], fields["height"]) ** 2
    return [fields | {"largest_mask_share": share, "masks": masks}]


SA1B = Kind(
    row="mask",
    schema=MASKS_SCHEMA,
    contract=SA1B_CONTRACT,
    formats={"sa1b": open_sa1b},
    # The boxes reach from first to last pixel.
    rows_unique_across_images=False,
    shard_rows=_shard_rows,
    panels=(*MASK_PANELS, ("predicted_iou", "predicted IoU"), ("stability_score", "stability score")),
)
