"""What rows of the shards share, whatever they hold: image, split, and the geometry of a mask."""

import hashlib
from functools import lru_cache
from typing import Any

from alto_models import masks as mask_arithmetic
from alto_models.masks import Rle
from jobs.preparation.measuring import MeasuredImage, MeasuredMask, MeasuredRow, StoredImage

Row = dict[str, Any]
TRAINING_SPLIT = "train"


@lru_cache(maxsize=1024)  # asked for every row of an image
def split_by_hash(image_id: str, held_out_share: float) -> str:
    """ "held_out" for that share of all ids, for ever the same ones, else TRAINING_SPLIT."""
    place = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") / 2**64
    return "held_out" if place < held_out_share else "train"


def split_of(image: MeasuredImage, row: MeasuredRow, held_out_share: float) -> str:
    """The publisher's split, else one by hash."""
    return row.raw.split or split_by_hash(image.raw.image_id, held_out_share)


def stored_rle(mask: MeasuredMask) -> Rle:
    """An accepted mask at the size its image is stored in."""
    rle = mask.stored_rle or mask.rle
    assert rle is not None, "accepted masks are measured"
    return rle


def geometry(mask: MeasuredMask) -> Row:
    """Fields of an accepted mask, at the size its image is stored in."""
    if mask.stored_rle is None:
        values = mask.values
        box = [values["box_x"], values["box_y"], values["box_width"], values["box_height"]]
        return {"counts": stored_rle(mask).counts, "box": box, "area": values["area"]}
    runs = mask_arithmetic.parse_counts(mask.stored_rle.counts)
    return {
        "counts": mask.stored_rle.counts,
        "box": list(mask_arithmetic.box(runs, mask.stored_rle.height)),
        "area": mask_arithmetic.area(runs),
    }


def boundary_length(mask: MeasuredMask) -> int:
    """Of an accepted mask, at the size its image is stored in."""
    if mask.stored_rle is None:
        return mask.values["boundary_length"]
    runs = mask_arithmetic.parse_counts(mask.stored_rle.counts)
    return mask_arithmetic.boundary_length(runs, mask.stored_rle.height)


def image_fields(image: MeasuredImage, source: str, split: str) -> Row:
    """Fields of an image that decodes."""
    assert image.size is not None, "accepted images decode"
    width, height = image.size
    stored = image.stored or StoredImage(data=image.raw.data, width=width, height=height)
    return {
        "image_id": image.raw.image_id,
        "image_numbering": image.raw.image_numbering,
        "source": source,
        "split": split,
        "width": stored.width,
        "height": stored.height,
        "original_width": width,
        "original_height": height,
        "image_sha256": image.sha256,
        "image": stored.data,
    }
