"""Writes sample scenes as REFER (`refs(unc).p`) or gRefCOCO (`grefs(unc).json`) with `instances.json`."""

import json
import pickle  # noqa: TID251 - writes the published format; reads nothing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jobs.acquisition.encoding import CATEGORY_IDS, coco_annotation, coco_image, coco_instances, jpeg
from jobs.acquisition.sampled import SampledScene
from jobs.sample_scenes.expressions import Expression

REFER_FILE = "refs(unc).p"
GREFCOCO_FILE = "grefs(unc).json"


class _Numbers:
    """Ids counted from 1 over the whole data set, as the publishers count them."""

    def __init__(self) -> None:
        self.annotation = 0
        self.record = 0
        self.sentence = 0


def write_refer(scenes: Iterable[SampledScene], output: Path) -> None:
    """REFER layout: one record an object, with all its expressions."""
    records, instances = _write_images(scenes, output, generalized=False)
    # Protocol 2, as published; nothing but lists, dicts, strings and numbers.
    (output / REFER_FILE).write_bytes(pickle.dumps(records, protocol=2))
    _write_json(output / "instances.json", instances)


def write_grefcoco(scenes: Iterable[SampledScene], output: Path) -> None:
    """gRefCOCO layout: a record has any number of objects, or none."""
    records, instances = _write_images(scenes, output, generalized=True)
    _write_json(output / GREFCOCO_FILE, records)
    _write_json(output / "instances.json", instances)


def _write_images(
    scenes: Iterable[SampledScene], output: Path, generalized: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    numbers = _Numbers()
    (output / "images").mkdir()
    for sampled in scenes:
        image_id = sampled.number + 1
        name = f"SCENES_{image_id:012d}.jpg"
        (output / "images" / name).write_bytes(jpeg(sampled.scene.image))
        images.append(coco_image(sampled.scene, image_id, name))
        first = numbers.annotation + 1
        for item in sampled.scene.objects:
            numbers.annotation += 1
            annotations.append(coco_annotation(item, numbers.annotation, image_id))
        for targets, expressions in sampled.by_targets().items():
            # Every no-target or multi-target expression means something else; those of one object the same.
            groups = [expressions] if targets else [[expression] for expression in expressions]
            for group in groups:
                records.append(_record(sampled, image_id, first, group, numbers, generalized))
    return records, coco_instances(images, annotations, "Sample scenes")


def _record(
    sampled: SampledScene,
    image_id: int,
    first_annotation: int,
    expressions: list[Expression],
    numbers: _Numbers,
    generalized: bool,
) -> dict[str, Any]:
    targets = expressions[0].targets
    annotation_ids = [first_annotation + target for target in targets] or [-1]
    categories = [CATEGORY_IDS[sampled.scene.objects[target].shape] for target in targets] or [-1]
    numbers.record += 1
    sentences = []
    for expression in expressions:
        numbers.sentence += 1
        sentences.append(_sentence(expression.text, numbers.sentence))
    record: dict[str, Any] = {
        "ref_id": numbers.record,
        "ann_id": annotation_ids if generalized else annotation_ids[0],
        "image_id": image_id,
        "category_id": categories if generalized else categories[0],
        "split": sampled.split,
        "file_name": f"SCENES_{image_id:012d}_{numbers.record}.jpg",
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    }
    return record | {"no_target": not targets} if generalized else record


def _sentence(text: str, sentence_id: int) -> dict[str, Any]:
    return {"tokens": text.split(), "raw": text, "sent": text, "sent_id": sentence_id}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")))
