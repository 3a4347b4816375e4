"""Small data sets in their publishers' formats, for tests to damage."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from jobs.runner.context import StageContext
from jobs.runner.metric_log import MetricLog

HEIGHT, WIDTH = 24, 40


def context(folder: Path, stage: str, partition: str) -> StageContext:
    """Context of a prepare stage whose acquired data lie in folder/acquired/<partition>."""
    output, work = folder / stage / "output", folder / stage / "work"
    output.mkdir(parents=True)
    work.mkdir()
    return StageContext(
        stage=stage,
        partition=partition,
        partition_items=(),
        seed=0,
        inputs={
            stage.replace("prepare", "acquire"): folder / "acquired",
            "prepare_benchmark": folder / "prepare_benchmark" / "output",
        },
        output=output,
        work=work,
        metric_log=MetricLog(work / "metrics.jsonl"),
    )


def acquired(folder: Path, partition: str, format_name: str) -> Path:
    """Empty acquired folder of a format."""
    path = folder / "acquired" / partition
    path.mkdir(parents=True)
    (path / "dataset.json").write_text(json.dumps({"format": format_name}))
    return path


def jpeg(width: int = WIDTH, height: int = HEIGHT, mode: str = "RGB", seed: int = 0, **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def box_mask(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def annotation(annotation_id: int, **changes: Any) -> dict[str, Any]:
    """A right SA-1B annotation, with fields replaced; a field set to None is left out."""
    mask = box_mask(3, 4, 10, 6)
    fields = {
        "id": annotation_id,
        "segmentation": rle(mask),
        "bbox": [3.0, 4.0, 9.0, 5.0],
        "area": 60,
        "predicted_iou": 1.01,
        "stability_score": 0.97,
        "crop_box": [0.0, 0.0, float(WIDTH), float(HEIGHT)],
        "point_coords": [[5.0, 6.0]],
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def sa1b_json(image_id: int, annotations: list[Any], **changes: Any) -> bytes:
    image = {"image_id": image_id, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{image_id}.jpg"}
    return json.dumps({"image": image | changes, "annotations": annotations}).encode()


def add_member(tar: tarfile.TarFile, name: str, data: bytes, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def coco_annotation(
    annotation_id: int, image_id: int, category_id: int = 1, **changes: Any
) -> dict[str, Any]:
    fields = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": rle(box_mask(3, 4, 10, 6)),
        "bbox": [3.0, 4.0, 10.0, 6.0],
        "area": 60.0,
        "iscrowd": 0,
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def write_coco(folder: Path, image_ids: list[int], annotations: list[dict[str, Any]]) -> None:
    """instances.json with categories 1 "cup" and 2 "plate", and the images."""
    images: list[dict[str, Any]] = [
        {"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": WIDTH, "height": HEIGHT}
        for image_id in image_ids
    ]
    (folder / "images").mkdir()
    for image in images:
        (folder / "images" / image["file_name"]).write_bytes(jpeg(seed=image["id"]))
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def reference(ref_id: int, image_id: int, ann_id: Any, **changes: Any) -> dict[str, Any]:
    fields = {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": 1,
        "split": "train",
        "file_name": f"COCO_train2014_{image_id:012d}_{ref_id}.jpg",
        "sent_ids": [ref_id],
        "sentences": [{"tokens": ["left", "cup"], "raw": "Left cup", "sent": "left cup", "sent_id": ref_id}],
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def sentence(text: str) -> dict[str, Any]:
    return {"tokens": text.split(), "raw": text, "sent": text, "sent_id": 0}
