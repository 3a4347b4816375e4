"""COCO `instances.json`: the index REFER data sets point into, and a data set of its own.

As a data set, the name of a category is an expression that means all of its instances in an image.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat

from data_contracts.errors import InputError
from jobs.formats.raw import (
    Fields,
    Identifier,
    Problem,
    ProblemError,
    RawDataset,
    RawImage,
    RawMask,
    RawRow,
    Side,
    Text,
    as_box,
    identifier_of,
    is_file,
    load_json_file,
    parse_fields,
    read_bytes,
    safe_path,
)
from jobs.formats.selection import WHOLE, Selection

# Folders that images are looked for in, below that of the data set: as people lay out COCO.
IMAGE_PLACES = ("images", "", "train2014", "images/train2014")

COCO_NUMBERING = "coco"


class CocoImage(Fields):
    id: Identifier
    file_name: Text
    width: Side
    height: Side


class CocoCategory(Fields):
    id: Identifier
    name: Text


class CocoAnnotation(Fields):
    id: Identifier
    image_id: Identifier
    category_id: Identifier
    segmentation: Any
    bbox: list[FiniteFloat]
    area: FiniteFloat


@dataclass(frozen=True, kw_only=True)
class CocoIndex:
    """instances.json by id; rows are parsed when they are asked for."""

    folder: Path
    images: dict[str, Any]
    annotations: dict[str, Any]
    category_names: dict[str, str]

    def mask(self, annotation_id: str, image_id: str) -> RawMask:
        """The annotation as a mask of that image; a missing or wrong one carries its problem."""
        try:
            if annotation_id not in self.annotations:
                raise ProblemError("annotation_exists", f"ann_id {annotation_id}")
            fields = parse_fields(CocoAnnotation, self.annotations[annotation_id])
            if fields.image_id != image_id:
                raise ProblemError(
                    "annotation_exists", f"ann_id {annotation_id} is of image {fields.image_id}"
                )
            if fields.category_id not in self.category_names:
                raise ProblemError("category_exists", f"category_id {fields.category_id}")
            return RawMask(
                mask_id=annotation_id,
                segmentation=fields.segmentation,
                category=self.category_names[fields.category_id],
                stated_area=fields.area,
                stated_box=as_box(fields.bbox),
            )
        except ProblemError as error:
            return RawMask(mask_id=annotation_id, problem=error.problem)

    def image(self, image_id: str, source_file: str, rows: tuple[RawRow, ...]) -> RawImage:
        """The image with these rows; its file is looked for in IMAGE_PLACES."""
        try:
            if image_id not in self.images:
                raise ProblemError("image_exists", f"image_id {image_id} is not in instances.json")
            fields = parse_fields(CocoImage, self.images[image_id])
            return RawImage(
                image_id=image_id,
                image_numbering=COCO_NUMBERING,
                source_file=source_file,
                rows=rows,
                data=read_image_file(self.folder, fields.file_name),
                stated_size=(fields.width, fields.height),
            )
        except ProblemError as error:
            return RawImage(image_id=image_id, source_file=source_file, rows=rows, problem=error.problem)


def read_image_file(folder: Path, file_name: str) -> bytes:
    """Bytes of an image in one of IMAGE_PLACES. Raises ProblemError."""
    paths = [safe_path(folder / place, file_name) for place in IMAGE_PLACES]
    return read_bytes(next((path for path in paths if is_file(path)), paths[0]), "image_exists")


def load_coco_index(path: Path, folder: Path) -> CocoIndex:
    """path: instances.json; folder: of the images. Raises InputError unless the file has its three lists."""
    content = load_json_file(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{path}: no list {key!r}; it is not a COCO instances file")
    return CocoIndex(
        folder=folder,
        images=_by_id(content["images"]),
        annotations=_by_id(content["annotations"]),
        category_names=_names_by_id(content["categories"]),
    )


def _names_by_id(categories: Iterable[Any]) -> dict[str, str]:
    """Names of the categories that can be read; masks of others lead to no category."""
    names: dict[str, str] = {}
    for row in categories:
        try:
            category = parse_fields(CocoCategory, row)
        except ProblemError:
            continue
        names.setdefault(category.id, category.name)
    return names


def _by_id(rows: Iterable[Any]) -> dict[str, Any]:
    """Rows by id, the first of each; later ones get names of their own so that they are seen and refused."""
    by_id: dict[str, Any] = {}
    for number, row in enumerate(rows):
        key = identifier_of(row, "id", f"#{number}")
        by_id[key if key not in by_id else f"{key}#{number}"] = row
    return by_id


def open_coco_instances(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """One record per image and category; its masks are all instances of it, crowds included."""
    selection.refuse(folder, "coco_instances", "annotations", "splits")
    index = load_coco_index(folder / "instances.json", folder)
    keys_of_image: dict[str, list[str]] = defaultdict(list)
    for key, row in index.annotations.items():
        keys_of_image[identifier_of(row, "image_id", "")].append(key)
    return RawDataset(len(keys_of_image), _read_images(index, keys_of_image))


def _read_images(index: CocoIndex, keys_of_image: dict[str, list[str]]) -> Iterator[RawImage]:
    for image_id, keys in keys_of_image.items():
        masks_of_category: dict[str, list[RawMask]] = defaultdict(list)
        for key in keys:
            row = index.annotations[key]
            mask = index.mask(key, image_id)
            if "#" in key and mask.problem is None:
                mask = RawMask(mask_id=key, problem=Problem(rule="row_unique", value=f"id of {key} twice"))
            masks_of_category[identifier_of(row, "category_id", "")].append(mask)
        rows = tuple(
            RawRow(
                row_id=f"{image_id}-{category_id}",
                masks=tuple(masks),
                expressions=(index.category_names.get(category_id, ""),),
            )
            for category_id, masks in masks_of_category.items()
        )
        yield index.image(image_id, "instances.json", rows)
