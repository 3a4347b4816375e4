"""What rows of the shards share, whatever they hold: image, split, and the geometry of a mask."""

import hashlib
from typing import Any

from jobs.preparation.measuring import MeasuredImage, MeasuredMask, MeasuredRow

Row = dict[str, Any]


def split_by_hash(image_id: str, held_out_share: float) -> str:
    """ "held_out" for that share of all ids, for ever the same ones, else "train"."""
    place = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") / 2**64
    return "held_out" if place < held_out_share else "train"


def split_of(image: MeasuredImage, row: MeasuredRow, held_out_share: float) -> str:
    """The publisher's split, else one by hash."""
    return row.raw.split or split_by_hash(image.raw.image_id, held_out_share)


def geometry(mask: MeasuredMask) -> Row:
    """Fields of an accepted mask."""
    values = mask.values
    return {
        "counts": mask.rle.counts if mask.rle else "",
        "box": [values["box_x"], values["box_y"], values["box_width"], values["box_height"]],
        "area": values["area"],
    }


def image_fields(image: MeasuredImage, source: str, split: str) -> Row:
    """Fields of an image that decodes."""
    width, height = image.size or (0, 0)
    return {
        "image_id": image.raw.image_id,
        "source": source,
        "split": split,
        "width": width,
        "height": height,
        "original_width": width,
        "original_height": height,
        "image_sha256": hashlib.sha256(image.raw.data).hexdigest(),
        "image": image.raw.data,
    }
