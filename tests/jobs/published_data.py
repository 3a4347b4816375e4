"""Small benchmarks in the layouts of those who publish or convert them, for tests to damage."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from tests.jobs.raw_data import HEIGHT, WIDTH, box_mask, coco_annotation, jpeg, sentence

POLYGON = [[5.0, 4.0, 20.0, 4.0, 20.0, 16.0, 5.0, 16.0]]


def polygon_mask(polygon: list[list[float]]) -> np.ndarray:
    return coco.decode(coco.merge(coco.frPyObjects(polygon, HEIGHT, WIDTH)))


def mask_png(mask: np.ndarray, white: int = 255, mode: str | None = None, **options: Any) -> bytes:
    """PNG of a 0/1 mask; `mode` converts it."""
    kind = np.uint16 if white > 255 else np.uint8
    image = Image.fromarray((mask.astype(np.int64) * white).astype(kind))
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, "PNG", **options)
    return file.getvalue()


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths as a list of numbers, starting with the pixels outside."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels)) + 1
    edges = [0, *changes.tolist(), pixels.size]
    runs = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if pixels[0] else runs}


def psalm_entry(number: int, image_id: int, anns: Any, **changes: Any) -> dict[str, Any]:
    """A right entry, with fields replaced; a field set to None is left out."""
    name = f"COCO_train2014_{image_id:012d}.jpg"
    fields = {
        "image": name,
        "image_info": {"file_name": name, "height": HEIGHT, "width": WIDTH, "id": image_id, "license": 1},
        "instruction": [sentence("left cup"), sentence("the cup")],
        "anns": anns,
        "new_img_id": number,
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def write_psalm(folder: Path, name: str, split: str, entries: list[Any]) -> None:
    """`{name}/{name}_{split}.json` and the images of its entries."""
    (folder / name).mkdir(exist_ok=True)
    (folder / name / f"{name}_{split}.json").write_text(json.dumps(entries))
    (folder / "images").mkdir(exist_ok=True)
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("image"), str):
            (folder / "images" / Path(entry["image"]).name).write_bytes(jpeg())


def psalm_annotations(image_id: int) -> list[dict[str, Any]]:
    """One annotation of each kind of segmentation."""
    crowd = box_mask(22, 2, 6, 9)
    return [
        coco_annotation(10 * image_id, image_id),
        coco_annotation(
            10 * image_id + 1,
            image_id,
            segmentation=POLYGON,
            area=float(polygon_mask(POLYGON).sum()) + 2.5,
            bbox=[5.0, 4.0, 15.0, 12.0],
        ),
        coco_annotation(
            10 * image_id + 2,
            image_id,
            segmentation=uncompressed(crowd),
            area=int(crowd.sum()),
            bbox=[22, 2, 6, 9],
        ),
    ]


def write_refcocom(folder: Path, splits: dict[str, list[Any]], masks: dict[str, bytes]) -> None:
    """`annotations/{split}.json`, `masks/{segment_id}.png`, and the images."""
    for name in ("annotations", "masks", "images"):
        (folder / name).mkdir()
    for split, segments in splits.items():
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(segments))
        for segment in segments:
            if isinstance(segment, dict) and isinstance(segment.get("img_name"), str):
                (folder / "images" / Path(segment["img_name"]).name).write_bytes(jpeg())
    for name, data in masks.items():
        (folder / "masks" / f"{name}.png").write_bytes(data)


def segment(segment_id: Any, image: int = 7, **changes: Any) -> dict[str, Any]:
    fields = {
        "img_name": f"COCO_train2014_{image:012d}.jpg",
        "segment_id": segment_id,
        "sentences": ["left handle of the cup"],
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def write_multi_class(folder: Path, name: str, lines: list[Any]) -> None:
    """`{name}.jsonl`, the images, and a mask for each line that names one."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
        if isinstance(line, dict) and str(line.get("image")).startswith("images/"):
            (folder / line["image"]).write_bytes(jpeg())
        if isinstance(line, dict) and str(line.get("mask")).startswith("masks/"):
            (folder / line["mask"]).write_bytes(mask_png(box_mask(3, 4, 10, 6)))


def classes(number: int, image: int = 0, **changes: Any) -> dict[str, Any]:
    fields = {
        "image": f"images/{image}.jpg",
        "mask": f"masks/{number}.png",
        "description": ["wall", "floor"],
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def shape(
    label: str, x: float, y: float, right: float, bottom: float, kind: str = "polygon"
) -> dict[str, Any]:
    """A rectangle as labelme writes polygons."""
    points = [[x, y], [right, y], [right, bottom], [x, bottom]]
    return {"label": label, "labels": [label], "shape_type": kind, "points": points, "flags": {}}


def write_reason(
    folder: Path,
    split: str,
    name: str,
    shapes: list[Any],
    text: Any = ("the thing one drinks from",),
    encoding: str = "utf-8",
    **changes: Any,
) -> None:
    """`{split}/{name}.json` beside its image; a field set to None is left out."""
    (folder / split).mkdir(exist_ok=True)
    fields = {"text": list(text), "is_sentence": True, "shapes": shapes} | changes
    content = {key: value for key, value in fields.items() if value is not None}
    (folder / split / f"{name}.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    (folder / split / f"{name}.jpg").write_bytes(jpeg())
