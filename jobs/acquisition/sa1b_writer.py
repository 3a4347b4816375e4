"""Writes sample scenes as an SA-1B shard: a tar of `sa_N.jpg` + `sa_N.json`."""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.errors import InputError
from jobs.acquisition.encoding import box, compressed_rle, jpeg
from jobs.sample_scenes.scene import Scene, SceneObject

IDS_A_SHARD = 100_000
_SHARD_NAME = re.compile(r"sa_(\d{6})\.tar")


def shard_number(name: str) -> int:
    """Number in a shard's name, `sa_NNNNNN.tar`. Raises InputError for any other name."""
    matched = _SHARD_NAME.fullmatch(name)
    if matched is None:
        raise InputError(f"`{name}` is not a shard name such as sa_000000.tar; correct it (partitions.yaml)")
    return int(matched[1])


def write_shard(scenes: Iterator[tuple[Scene, np.random.Generator]], path: Path) -> None:
    """Write a shard; image ids are those of this shard alone.

    scenes: each with the generator of the quality figures that a model would have given.
    """
    first_id = shard_number(path.name) * IDS_A_SHARD
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for image_id, (scene, rng) in enumerate(scenes, start=first_id + 1):
            add_file(tar, f"sa_{image_id}.jpg", jpeg(scene.image))
            add_file(tar, f"sa_{image_id}.json", json.dumps(_content(scene, rng, image_id)).encode())


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file that depends on its name and content only."""
    # TarInfo's defaults: no time, no owner.
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _content(scene: Scene, rng: np.random.Generator, image_id: int) -> dict[str, Any]:
    height, width = scene.image.shape[:2]
    return {
        "image": {"image_id": image_id, "width": width, "height": height, "file_name": f"sa_{image_id}.jpg"},
        "annotations": [
            _annotation(item, rng, image_id * 100 + number) for number, item in enumerate(scene.objects)
        ],
    }


def _annotation(item: SceneObject, rng: np.random.Generator, annotation_id: int) -> dict[str, Any]:
    height, width = item.mask.shape
    x, y, box_width, box_height = box(item.mask)
    rows, columns = np.nonzero(item.mask)
    chosen = int(rng.integers(len(rows)))
    return {
        # From first to last pixel: one pixel short of the runs in width and height, as published.
        "bbox": [x, y, box_width - 1, box_height - 1],
        "area": item.area,
        "segmentation": compressed_rle(item.mask),
        "predicted_iou": float(rng.uniform(0.88, 1.0)),
        "point_coords": [[float(columns[chosen]) + 0.5, float(rows[chosen]) + 0.5]],
        "crop_box": [0.0, 0.0, float(width), float(height)],
        "id": annotation_id,
        "stability_score": float(rng.uniform(0.95, 1.0)),
    }
