"""Turns a data set in COCO layout into an SA-1B shard, which `acquire_sa1b` takes with `source: folder`.

    python -m jobs.acquisition.coco_shard INSTANCES_JSON IMAGES_FOLDER OUT/sa_NNNNNN.tar

Images keep their bytes (PNG as well, though an SA-1B shard calls every image `.jpg`) and their ids, by which
`prepare_sa1b` splits. Masks become compressed run lengths; box and area are measured from them, and the two
figures by which SA-1B's model judged its masks are 1. Crowds are left out, for they are no single object, and
so is what is no mask; both are counted. The same input gives the same bytes.
"""

import argparse
import json
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_contracts.errors import InputError
from data_contracts.masks import SA1B_CONTRACT
from jobs.acquisition.sa1b_writer import add_file, shard_number
from jobs.formats.coco import CocoIndex, load_coco_index
from jobs.formats.raw import RawImage
from jobs.preparation.measuring import MeasuredMask, measure_mask

CROWD = "crowd"


@dataclass(kw_only=True)
class ShardFigures:
    """left_out: masks by reason; first: the first mask left out for each reason but crowds."""

    images: int = 0
    masks: int = 0
    images_without_masks: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line."""
        reasons = [
            f"{count} {reason}" + (f" (first: {self.first[reason]})" if reason in self.first else "")
            for reason, count in sorted(self.left_out.items())
        ]
        return (
            f"{self.images} images, {self.masks} masks; masks left out: {', '.join(reasons) or 'none'}; "
            f"images left out, as no mask remains: {self.images_without_masks}"
        )


def write_coco_shard(instances: Path, images: Path, shard: Path, id_offset: int = 0) -> ShardFigures:
    """Write `shard`, which appears only when it is complete.

    images: the folder of the images, or one with `images/` in it. id_offset: added to all image ids.
    Raises InputError for a name that is no shard's, an id that is missing, comes twice or is no number, a mask
    of an unknown image, a missing image, and where no mask remains.
    """
    shard_number(shard.name)
    if not shard.parent.is_dir():
        raise InputError(f"{shard.parent}: no such folder for the shard; create it")
    index = load_coco_index(instances, images)
    keys_of_image = _annotations_by_image(index, instances)
    figures = ShardFigures()
    part = shard.with_name(f"{shard.name}.part")
    try:
        with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for image, annotations in _images(index, keys_of_image, figures):
                _add_pair(tar, image, annotations, id_offset)
        if not figures.masks:
            raise InputError(f"{instances}: no mask to write; {figures.summary()}")
        part.replace(shard)
    finally:
        part.unlink(missing_ok=True)
    return figures


def _annotations_by_image(index: CocoIndex, instances: Path) -> dict[str, list[str]]:
    """Keys of the annotations of each image, in file order. Raises InputError for wrong ids."""
    for kind, ids in (("image", index.images), ("annotation", index.annotations)):
        for key in ids:
            if not (key.isascii() and key.isdecimal()):
                raise InputError(f"{instances}: {kind} id {key!r} is missing, comes twice or is no number")
    keys_of_image: dict[str, list[str]] = defaultdict(list)
    for key, row in index.annotations.items():
        image_id = str(row.get("image_id"))
        if image_id not in index.images:
            raise InputError(f"{instances}: annotation {key} is of image {image_id:.40}, which is not listed")
        keys_of_image[image_id].append(key)
    return keys_of_image


def _images(
    index: CocoIndex, keys_of_image: dict[str, list[str]], figures: ShardFigures
) -> Iterator[tuple[RawImage, list[dict[str, Any]]]]:
    """Images that keep a mask, by rising id, with their SA-1B annotations."""
    for image_id in tqdm(sorted(index.images, key=int), "Writing shard", unit="image"):
        image = index.image(image_id, "", ())
        if image.problem is not None:
            raise InputError(f"image {image_id}: {image.problem.value}; correct it or the folder of images")
        annotations = []
        for key in keys_of_image[image_id]:
            if index.annotations[key].get("iscrowd"):
                figures.left_out[CROWD] += 1
                continue
            mask = measure_mask(index.mask(key, image_id), image.stated_size, SA1B_CONTRACT.convention)
            if (problem := _problem(mask)) is None:
                annotations.append(_annotation(mask, index.annotations[key]["id"]))
            else:
                figures.left_out[problem[0]] += 1
                figures.first.setdefault(problem[0], f"annotation {key}, {problem[1]}")
        if not annotations:
            figures.images_without_masks += 1
            continue
        figures.images += 1
        figures.masks += len(annotations)
        yield image, annotations


def _problem(mask: MeasuredMask) -> tuple[str, str] | None:
    """Why a mask cannot be used, and what was found."""
    if mask.problem is not None:
        return mask.problem.rule, mask.problem.value
    if mask.rle is None:
        values = mask.values
        size = f"{values['mask_width']} x {values['mask_height']}, {values['runs_total']} pixels"
        return "mask_fits_image", size
    return None if mask.values["area"] else ("mask_not_empty", "no pixel")


def _annotation(mask: MeasuredMask, annotation_id: int) -> dict[str, Any]:
    assert mask.rle is not None
    values, (height, width, counts) = mask.values, mask.rle
    return {
        # From first to last pixel: one pixel short of the runs in width and height, as published.
        "bbox": [values["box_x"], values["box_y"], values["box_width"] - 1, values["box_height"] - 1],
        "area": values["area"],
        "segmentation": {"size": [height, width], "counts": counts},
        "predicted_iou": 1.0,
        "point_coords": [],
        "crop_box": [0.0, 0.0, float(width), float(height)],
        "id": annotation_id,
        "stability_score": 1.0,
    }


def _add_pair(
    tar: tarfile.TarFile, image: RawImage, annotations: list[dict[str, Any]], id_offset: int
) -> None:
    assert image.stated_size is not None
    image_id, (width, height) = int(image.image_id) + id_offset, image.stated_size
    name = f"sa_{image_id}.jpg"
    entry = {"image_id": image_id, "width": width, "height": height, "file_name": name}
    add_file(tar, name, image.data)
    add_file(tar, f"sa_{image_id}.json", json.dumps({"image": entry, "annotations": annotations}).encode())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.acquisition.coco_shard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("instances", type=Path, metavar="INSTANCES_JSON")
    parser.add_argument("images", type=Path, metavar="IMAGES_FOLDER")
    parser.add_argument("shard", type=Path, metavar="OUT", help="such as shards/sa_100000.tar")
    parser.add_argument(
        "--id-offset", type=int, default=0, help="added to image ids, where another shard has the same"
    )
    options = parser.parse_args(argv)
    try:
        figures = write_coco_shard(options.instances, options.images, options.shard, options.id_offset)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{options.shard}: {figures.summary()}")


if __name__ == "__main__":
    main()
