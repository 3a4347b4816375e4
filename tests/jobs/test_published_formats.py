"""Benchmarks as they are published or converted: what their readers yield and what becomes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from alto_models import masks as mask_arithmetic
from alto_models.data.referring import ReferringImages
from data_contracts.errors import InputError
from jobs.formats.multi_class import open_multi_class
from jobs.formats.psalm import open_psalm
from jobs.formats.selection import Selection
from tests.jobs.published_data import (
    POLYGON,
    classes,
    mask_png,
    polygon_mask,
    psalm_annotations,
    psalm_entry,
    segment,
    write_multi_class,
    write_psalm,
    write_refcocom,
)
from tests.jobs.published_runs import assert_quarantined, decoded, prepared, records_of
from tests.jobs.raw_data import HEIGHT, WIDTH, acquired, box_mask, coco_annotation, jpeg
from tests.jobs.test_prepare import assert_accounted_for


def test_psalm_masks_of_every_kind_are_those_of_pycocotools(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "psalm")
    annotations = psalm_annotations(3)
    entries = [
        psalm_entry(0, 3, annotations),
        psalm_entry(1, 3, [annotations[1]], instruction=[{"sent": "plate", "raw": "Plate", "tokens": []}]),
        psalm_entry(2, 4, []),
    ]
    write_psalm(path, "grefcoco", "val", entries)
    report, output = prepared(tmp_path, limit=0.0)
    assert_accounted_for(report, output, 3)
    assert report.figures["images_val"] == 2
    records = records_of(output, "val")
    assert [record.expressions for record in records.values()] == [
        ("left cup", "the cup"),
        ("plate",),
        ("left cup", "the cup"),
    ]
    assert records["val-2"].no_target
    truths = {
        "30": coco.decode(annotations[0]["segmentation"]),
        "31": polygon_mask(POLYGON),
        "32": coco.decode(coco.frPyObjects(annotations[2]["segmentation"], HEIGHT, WIDTH)),
    }
    assert [item.instance_id for item in records["val-0"].instances] == list(truths)
    for item in records["val-0"].instances:
        np.testing.assert_array_equal(mask_arithmetic.decode(item.rle), truths[item.instance_id])
    np.testing.assert_array_equal(decoded(records["val-0"]), np.logical_or.reduce(list(truths.values())))


BROKEN_ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "no instruction": ({"instruction": None}, "fields_complete"),
    "instruction of text": ({"instruction": ["left cup"]}, "fields_complete"),
    "nothing asked": ({"instruction": []}, "has_expression"),
    "anns missing": ({"anns": None}, "fields_complete"),
    "anns of another image": ({"anns": [coco_annotation(1, 99)]}, "annotation_exists"),
    "anns no objects": ({"anns": [3]}, "fields_complete"),
    "bbox of text": ({"bbox": ["3", 4, 10, 6]}, "fields_complete"),
    "another area": ({"area": 61}, "area_as_stated"),
    "NaN": ({"area": float("nan")}, "numbers_finite"),
    "empty image": ({"image": "empty.jpg"}, "image_decodes"),
    "no image": ({"image": "none.jpg"}, "image_exists"),
    "outside": ({"image": "../secret.jpg"}, "path_safe"),
    "absolute": ({"image": "/etc/hostname"}, "path_safe"),
    "no image_info": ({"image_info": None}, "fields_complete"),
    "lone surrogate": ({"instruction": [{"sent": "cup \ud800"}]}, "fields_complete"),
    "1 MB": ({"instruction": [{"sent": "cup " * 250_000}]}, "expression_not_too_long"),
}


def test_wrong_psalm_entries_are_quarantined_and_no_others(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "psalm")
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    entries = []
    for number, (changes, _) in enumerate(BROKEN_ENTRIES.values()):
        of_annotation = {name: value for name, value in changes.items() if name in ("bbox", "area")}
        of_entry = {name: value for name, value in changes.items() if name not in of_annotation}
        annotation = coco_annotation(number, number, **of_annotation)
        entries.append(psalm_entry(number, number, **({"anns": [annotation]} | of_entry)))
    twice = psalm_entry(98, 98, [coco_annotation(98, 98)] * 2)
    right = psalm_entry(99, 99, [coco_annotation(99, 99)])
    write_psalm(path, "refcoco", "val", [*entries, twice, right])
    (path / "images" / "none.jpg").unlink()
    (path / "images" / "empty.jpg").write_bytes(b"")
    rules = [rule for _, rule in BROKEN_ENTRIES.values()]
    assert_quarantined(*prepared(tmp_path), [*rules, "row_unique"], ["val-99"])


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"nothing", '[{"a": "b"}]'.encode("utf-16"), b"[" * 100_000, b"null"],
    ids=["empty", "object", "text", "utf-16", "deep", "null"],
)
@pytest.mark.parametrize("format_name", ["psalm", "refcocom"])
def test_a_file_of_annotations_that_is_no_list_is_named(
    tmp_path: Path, content: bytes, format_name: str
) -> None:
    path = acquired(tmp_path, "set", format_name)
    file = path / {"psalm": "refcoco/refcoco_val.json", "refcocom": "annotations/val.json"}[format_name]
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(InputError, match=file.name):
        prepared(tmp_path)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "psalm")
    (path / "refcoco" / "refcoco_val.json").mkdir(parents=True)
    with pytest.raises(InputError, match="refcoco_val.json: Is a directory"):
        prepared(tmp_path)


def test_splits_are_chosen_and_the_rows_of_others_counted(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "psalm")
    for split, image in (("val", 3), ("testA", 4), ("testB", 5)):
        write_psalm(path, "refcoco", split, [psalm_entry(0, image, [coco_annotation(1, image)])])
    report, output = prepared(tmp_path, splits=["testA"])
    assert list(records_of(output)) == ["testA-0"]
    assert report.figures["rows_of_other_splits"] == 2
    assert_accounted_for(report, output, 1)
    with pytest.raises(InputError, match=r"no row of split 'testC', see `splits`; it has testA, testB, val"):
        open_psalm(path, Selection(splits=("testC",)))


def test_of_several_data_sets_one_must_be_named(tmp_path: Path) -> None:
    for name in ("refcoco", "refcoco+"):
        write_psalm(tmp_path, name, "val", [psalm_entry(0, 3, [coco_annotation(1, 3)])])
    with pytest.raises(InputError, match=r"2 folders .*\(refcoco, refcoco\+\), one expected; name one"):
        open_psalm(tmp_path)
    (image,) = open_psalm(tmp_path, Selection(annotations="refcoco+")).images
    assert image.source_file == "refcoco+/refcoco+_val.json"
    with pytest.raises(InputError, match="no 'refcocog' among"):
        open_psalm(tmp_path, Selection(annotations="refcocog"))


def test_refcocom_takes_both_forms_of_sentences(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "refcocom")
    part, whole = box_mask(3, 4, 2, 2), box_mask(3, 4, 10, 6)
    splits = {
        "val_part_only": [segment(1), segment("2b", 8, sentences=[{"sent": "lid", "raw": "Lid"}])],
        "val_object_part": [segment(1, sentences=["the handle"]), segment(3, sentences=["cup", "mug"])],
    }
    write_refcocom(path, splits, {"1": mask_png(part), "2b": mask_png(part), "3": mask_png(whole)})
    report, output = prepared(tmp_path, limit=0.0)
    assert_accounted_for(report, output, 4)
    records = records_of(output)
    assert {name: record.expressions for name, record in records.items()} == {
        "val_part_only-1": ("left handle of the cup",),
        "val_part_only-2b": ("lid",),
        "val_object_part-1": ("the handle",),
        "val_object_part-3": ("cup", "mug"),
    }
    np.testing.assert_array_equal(decoded(records["val_object_part-3"]), whole)
    assert {image.image_id for image in ReferringImages(output, "val_part_only")} == {"7", "8"}


BROKEN_SEGMENTS: dict[str, tuple[Any, str]] = {
    "no mask": (segment(77), "mask_readable"),
    "id leaves folder": (segment("../../secret"), "path_safe"),
    "sentences of numbers": (segment(1, sentences=[3]), "fields_complete"),
    "nothing asked": (segment(2, sentences=[]), "has_expression"),
    "blank": (segment(3, sentences=[" "]), "expression_not_empty"),
    "no image name": (segment(4, 8, img_name=None), "fields_complete"),
    "no object": ("segment", "fields_complete"),
    "other size": (segment("wide", 9), "mask_width_fits_image"),
    "empty mask": (segment("black", 9), "mask_not_empty"),
}


def test_wrong_segments_are_quarantined_and_no_others(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "refcocom")
    right = box_mask(3, 4, 10, 6)
    masks = {
        **dict.fromkeys("12345", right),
        "black": right * 0,
        "wide": np.ones((HEIGHT, WIDTH + 1), np.uint8),
    }
    broken = [row for row, _ in BROKEN_SEGMENTS.values()]
    write_refcocom(path, {"val": [*broken, segment(5, 90)]}, {name: mask_png(m) for name, m in masks.items()})
    (tmp_path / "secret.png").write_bytes(mask_png(right))
    assert_quarantined(*prepared(tmp_path), [rule for _, rule in BROKEN_SEGMENTS.values()], ["val-5"])


def test_classes_are_asked_together(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "multi_class")
    lines = [classes(0), classes(1, description=["sky"]), classes(2, image=1, description=["a, b", "c"])]
    write_multi_class(path, "ade", lines)
    report, output = prepared(tmp_path, limit=0.0)
    assert_accounted_for(report, output, 3)
    records = records_of(output)
    assert [record.expressions for record in records.values()] == [("wall, floor",), ("sky",), ("a, b, c",)]
    assert [record.instances[0].category for record in records.values()] == [None, "sky", None]
    for record in records.values():
        np.testing.assert_array_equal(decoded(record), box_mask(3, 4, 10, 6))


BROKEN_LINES: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "no json": (b"{broken", "line_readable"),
    "utf-16": (json.dumps(classes(0)).encode("utf-16-le"), "line_readable"),
    "cp1252": (b'{"image": "images/0.jpg", "description": ["caf\xe9"]}', "line_readable"),
    "description of text": ({"description": "wall"}, "fields_complete"),
    "no class": ({"description": []}, "has_expression"),
    "only marks": ({"description": ["\ufeff \u200b\0"]}, "expression_not_empty"),
    "5,000 digits": (b'{"image": ' + b"9" * 5000 + b"}", "fields_complete"),
    "empty class": ({"description": ["wall", " "]}, "fields_complete"),
    "1 MB": ({"description": ["x" * 2**20]}, "expression_not_too_long"),
    "no mask": ({"mask": "masks/none.png"}, "mask_readable"),
    "mask outside": ({"mask": "../mask.png"}, "path_safe"),
    "image outside": ({"image": "../0.jpg"}, "path_safe"),
    "image missing": ({"image": "images/none.jpg"}, "image_exists"),
    "image a folder": ({"image": "images"}, "image_exists"),
    "name too long": ({"image": "a" * 5000}, "image_exists"),
    "null character": ({"image": "a\0b"}, "path_safe"),
    "empty name": ({"image": ""}, "path_safe"),
    "no image": ({"image": None}, "fields_complete"),
}


def test_wrong_lines_are_quarantined_and_no_others(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "multi_class")
    lines = [classes(number, image=number) for number in range(len(BROKEN_LINES) + 1)]
    write_multi_class(path, "ade", lines)
    broken = [
        damage if isinstance(damage, bytes) else json.dumps(line | damage).encode()
        for line, (damage, _) in zip(lines, BROKEN_LINES.values(), strict=False)
    ]
    right = b"\xef\xbb\xbf" + json.dumps(lines[-1]).encode()
    (path / "ade.jsonl").write_bytes(b"\n".join([*broken, right + b"\r\n", b""]))
    rules = [rule for _, rule in BROKEN_LINES.values()]
    assert_quarantined(*prepared(tmp_path), rules, [f"ade-{len(rules) + 1}"])


def test_of_several_jsonl_one_must_be_named(tmp_path: Path) -> None:
    for name in ("ade", "pascal_voc"):
        write_multi_class(tmp_path, name, [classes(0)])
    with pytest.raises(InputError, match=r"\(ade.jsonl, pascal_voc.jsonl\), one expected"):
        open_multi_class(tmp_path)
    (image,) = open_multi_class(tmp_path, Selection(annotations="pascal_voc.jsonl")).images
    assert image.rows[0].row_id == "pascal_voc-1"
    with pytest.raises(InputError, match="has no `splits` to choose"):
        open_multi_class(tmp_path, Selection(annotations="ade.jsonl", splits=("val",)))
