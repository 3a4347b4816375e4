"""Prepared masks as `prepare_sa1b` leaves them, in many small row groups."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from alto_models import masks as mask_arithmetic
from alto_models.data.crops import CropSettings
from data_contracts.schemas import MASKS_SCHEMA

SETTINGS = CropSettings(image_size=16, mask_size=8, masks_per_crop=2, max_merged=2, min_area_share=0.01)


def write_shards(
    folder: Path, images: int, per_shard: int = 40, per_group: int = 8, side: int = 12, unusable: int = 7
) -> Path:
    """Images of noise with a rectangle in each; every `unusable`-th has a mask of one pixel only, every 11th is held
    out."""
    rows = [_row(number, side, small=number % unusable == 0) for number in range(images)]
    for number, first in enumerate(range(0, images, per_shard)):
        path = folder / f"batch_{number % 2}" / f"shard-{number:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows[first : first + per_shard], schema=MASKS_SCHEMA)
        pq.write_table(table, path, row_group_size=per_group, compression="zstd", write_page_checksum=True)
    return folder


def usable_ids(images: int, unusable: int = 7) -> list[str]:
    return [_name(number) for number in range(images) if number % unusable and number % 11]


def _name(number: int) -> str:
    return f"image-{number:04d}"


def _row(number: int, side: int, small: bool) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    mask = np.zeros((side, side), np.uint8)
    mask[: 1 if small else side // 2, : 1 if small else side // 2] = 1
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    rle = mask_arithmetic.encode(mask)
    area = int(mask.sum())
    stored = {
        "mask_id": "0",
        "counts": rle.counts,
        "box": list(mask_arithmetic.box(mask_arithmetic.parse_counts(rle.counts), side)),
        "area": area,
        "boundary_length": 1,
    }
    return {
        "image_id": _name(number),
        "source": "noise",
        "split": "train" if number % 11 else "held_out",
        "width": side,
        "height": side,
        "original_width": side,
        "original_height": side,
        "image_sha256": "",
        "image": file.getvalue(),
        "largest_mask_share": area / side**2,
        "masks": [stored],
    }
