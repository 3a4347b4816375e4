"""Prepared data and parameters for a mask tokenizer that trains in a second, and contexts to run its stages in."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from alto_models import masks as mask_arithmetic
from data_contracts.schemas import MASKS_SCHEMA, REFERRING_SCHEMA
from jobs.runner.context import StageContext
from jobs.runner.metric_log import MetricLog

ROOT = Path(__file__).resolve().parents[2]
SIDE = 48
SEED = 11


def parameters(stage: str) -> dict[str, Any]:
    """The stage's section of profile `smoke`."""
    base, smoke = (
        yaml.safe_load((ROOT / f"infra/profiles/{name}.yaml").read_text())[stage]
        for name in ("base", "smoke")
    )
    return merged(base, smoke)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(base[key], value) if isinstance(value, dict) else value
    return result


def write_prepared_masks(folder: Path, train: int = 6, held_out: int = 3) -> Path:
    """The output folder of `prepare_sa1b`: images of two discs."""
    rows = []
    for number in range(train + held_out):
        masks = [disc(14 + number, 15, 9), disc(30, 34 - number, 7)]
        row = image_row(number, "train" if number < train else "held_out", masks)
        share = max(int(mask.sum()) for mask in masks) / SIDE**2
        mask_rows = [mask_row(mask, place) for place, mask in enumerate(masks)]
        rows.append(row | {"masks": mask_rows, "largest_mask_share": share})
    return write(folder, "batch", rows, MASKS_SCHEMA)


def write_prepared_records(folder: Path, dataset: str, images: int = 3, width: int = SIDE) -> Path:
    """The output folder of `prepare_referring`: a record for one disc, one for both, and one without a target.

    width: of the images, empty beside the discs.
    """
    rows = []
    for number in range(images):
        discs = [disc(14 + number, 15, 9), disc(30, 34 - number, 7)]
        masks = [np.pad(each, ((0, 0), (0, width - SIDE))) for each in discs]
        records = [record("one", masks[:1]), record("both", masks), record("none", [])]
        rows.append(image_row(number, "train", masks) | {"source": dataset, "records": records})
    rows.append(image_row(images, "val", masks) | {"source": dataset, "records": [record("val", masks)]})
    return write(folder, dataset, rows, REFERRING_SCHEMA)


def context(folder: Path, stage: str, **inputs: Path) -> StageContext:
    output, work = folder / stage / "output", folder / stage / "work"
    output.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)
    return StageContext(
        stage=stage,
        partition=None,
        partition_items=(),
        seed=SEED,
        inputs=inputs,
        output=output,
        work=work,
        metric_log=MetricLog(work / "metrics.jsonl"),
    )


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE))
    return np.hypot(rows - y, columns - x) < radius


def image_row(number: int, split: str, masks: list[np.ndarray]) -> dict[str, Any]:
    height, width = masks[0].shape
    picture = np.zeros((height, width, 3), np.uint8)
    for channel, mask in enumerate(masks):
        picture[mask, channel] = 220
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return {
        "image_id": f"image-{number}",
        "source": "discs",
        "split": split,
        "width": width,
        "height": height,
        "original_width": SIDE,
        "original_height": SIDE,
        "image_sha256": "",
        "image": file.getvalue(),
    }


def mask_row(mask: np.ndarray, place: int) -> dict[str, Any]:
    rle = mask_arithmetic.encode(mask)
    runs = mask_arithmetic.parse_counts(rle.counts)
    return {
        "mask_id": str(place),
        "counts": rle.counts,
        "box": list(mask_arithmetic.box(runs, SIDE)),
        "area": mask_arithmetic.area(runs),
        "boundary_length": mask_arithmetic.boundary_length(runs, SIDE),
    }


def record(name: str, masks: list[np.ndarray]) -> dict[str, Any]:
    union = np.logical_or.reduce(masks) if masks else None
    return {
        "record_id": name,
        "expressions": [name],
        "no_target": union is None,
        "counts": None if union is None else mask_arithmetic.encode(union).counts,
        "area": 0 if union is None else int(union.sum()),
        "boundary_length": 0,
        "instances": [],
    }


def write(folder: Path, partition: str, rows: list[dict[str, Any]], schema: pa.Schema) -> Path:
    (folder / partition).mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / partition / "shard-00000.parquet")
    return folder
