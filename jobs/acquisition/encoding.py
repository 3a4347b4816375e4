"""Scenes as the publishers' files encode them: JPEG images, run lengths, polygons, COCO annotations."""

import io
from typing import Any

import numpy as np
from contourpy import LineType, contour_generator
from PIL import Image
from pycocotools import mask as coco_mask

from jobs.sample_scenes.scene import SHAPES, Scene, SceneObject

JPEG_QUALITY = 92
CATEGORY_IDS = {shape: number for number, shape in enumerate(SHAPES, start=1)}


def jpeg(image: np.ndarray) -> bytes:
    """JPEG of (H, W, 3) uint8, colours at full resolution."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def compressed_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO run lengths {"size": [h, w], "counts": str} of (H, W) bool."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def uncompressed_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO run lengths {"size": [h, w], "counts": [int]}, by columns, the first run outside the mask."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], starts, [mask.size]]))
    return {"size": list(mask.shape), "counts": runs.tolist()}


def exact_polygons(mask: np.ndarray) -> list[list[float]] | None:
    """Polygons [[x, y, x, y, ...]] that pycocotools rasterises to exactly this mask; None where there are
    none, such as for a mask with holes."""
    height, width = mask.shape
    lines = contour_generator(z=np.pad(mask, 1).astype(float), line_type=LineType.Separate).lines(0.5)
    polygons = [(np.asarray(line) - 0.5).ravel().tolist() for line in lines]
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
    return polygons if np.array_equal(drawn.astype(bool), mask) else None


def box(mask: np.ndarray) -> list[float]:
    """[x, y, width, height] in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)]


def coco_annotation(item: SceneObject, annotation_id: int, image_id: int) -> dict[str, Any]:
    """COCO annotation: polygons where they are exact, else uncompressed run lengths."""
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": CATEGORY_IDS[item.shape],
        "segmentation": exact_polygons(item.mask) or uncompressed_rle(item.mask),
        "area": float(item.area),
        "bbox": box(item.mask),
        "iscrowd": 0,
    }


def coco_instances(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], description: str
) -> dict[str, Any]:
    """Content of an `instances.json`."""
    return {
        "info": {"description": description, "version": "1.0"},
        "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": shape, "supercategory": "shape"} for shape, number in CATEGORY_IDS.items()
        ],
    }


def coco_image(scene: Scene, image_id: int, file_name: str) -> dict[str, Any]:
    """COCO image entry."""
    height, width = scene.image.shape[:2]
    return {"id": image_id, "file_name": file_name, "height": height, "width": width, "license": 1}
