"""Benchmarks as they are published or converted: what their readers yield and what becomes of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from alto_models import masks as mask_arithmetic
from alto_models.data.referring import ReferringImages, ReferringRecord
from alto_models.data.shards import ShardRows
from data_contracts.errors import InputError
from data_contracts.rules import Convention
from data_contracts.schemas import REFERRING_SCHEMA
from jobs import prepare_benchmark, prepare_referring
from jobs.benchmarking.questions import BenchmarkImage
from jobs.benchmarking.rows import Prediction, sample_row
from jobs.formats.mask_png import read_mask_png
from jobs.formats.multi_class import open_multi_class
from jobs.formats.psalm import open_psalm
from jobs.formats.raw import ProblemError, RawMask
from jobs.formats.reason_seg import open_reason_seg
from jobs.formats.refcocom import open_refcocom
from jobs.formats.selection import Selection
from jobs.preparation.measuring import measure_image, measure_mask
from jobs.runner.context import StageReport
from tests.jobs.published_data import (
    POLYGON,
    classes,
    mask_png,
    polygon_mask,
    psalm_annotations,
    psalm_entry,
    segment,
    shape,
    uncompressed,
    write_multi_class,
    write_psalm,
    write_reason,
    write_refcocom,
)
from tests.jobs.raw_data import HEIGHT, WIDTH, acquired, box_mask, coco_annotation, context, jpeg, rle
from tests.jobs.test_prepare import assert_accounted_for, quarantined


def prepared(folder: Path, limit: float = 1.0, **chosen: Any) -> tuple[StageReport, Path]:
    given_ = context(folder, "prepare_benchmark", "set")
    parameters = {"benchmarks": {"set": chosen}, "contract": {"max_quarantined_share": limit}}
    report = prepare_benchmark.run(prepare_benchmark.Config.model_validate(parameters), given_)
    return report, given_.output


def records_of(output: Path, split: str | None = None) -> dict[str, ReferringRecord]:
    return {record.record_id: record for image in ReferringImages(output, split) for record in image.records}


def decoded(record: ReferringRecord) -> np.ndarray:
    assert record.rle is not None
    return mask_arithmetic.decode(record.rle)


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


def assert_quarantined(report: StageReport, output: Path, rules: list[str], accepted: list[str]) -> None:
    """Every row broke the rule it should, in order of reading, and the others are there."""
    assert_accounted_for(report, output, len(rules) + len(accepted))
    assert [row["rule"] for row in quarantined(output)] == rules
    assert list(records_of(output)) == accepted
    assert all(row["value"] and row["reason"] for row in quarantined(output))


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


SHAPE = box_mask(3, 4, 10, 6)


@pytest.mark.parametrize(
    "data",
    [
        mask_png(SHAPE),
        mask_png(SHAPE, mode="1"),
        mask_png(SHAPE, mode="P"),
        mask_png(SHAPE, mode="RGB"),
        mask_png(SHAPE, mode="RGBA"),
        mask_png(SHAPE, mode="LA"),
        mask_png(SHAPE, white=65535),
        mask_png(SHAPE, white=200),
    ],
    ids=["L", "1", "P", "RGB", "RGBA", "LA", "16 bit", "grey"],
)
def test_a_mask_png_of_any_depth_is_read_exactly(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mask.png").write_bytes(data)
    np.testing.assert_array_equal(coco.decode(read_mask_png(tmp_path / "mask.png")), SHAPE)


def class_colours() -> bytes:
    """A palette image of classes, as PASCAL VOC publishes its segmentations."""
    import io

    from PIL import Image

    image = Image.fromarray(SHAPE, "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: mask_png(SHAPE, white=1), "brightest pixel 1 of 255"),
        (lambda: mask_png(SHAPE, white=127), "brightest pixel 127 of 255"),
        (lambda: mask_png(SHAPE, white=300), "brightest pixel 300 of 65535"),
        (class_colours, "mode P with colours"),
        (lambda: mask_png(SHAPE)[:-30], "truncated|broken|end"),
        (lambda: b"", "cannot identify"),
        (jpeg, "cannot identify"),
    ],
    ids=["0 and 1", "dark", "16 bit of 8", "class colours", "cut off", "empty", "jpeg"],
)
def test_what_is_no_black_and_white_mask_says_so(
    tmp_path: Path, make: Callable[[], bytes], reason: str
) -> None:
    (tmp_path / "mask.png").write_bytes(make())
    with pytest.raises(ProblemError, match=f"mask_readable: mask.png: .*({reason})"):
        read_mask_png(tmp_path / "mask.png")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OPENED = {"psalm": open_psalm, "refcocom": open_refcocom, "multi_class": open_multi_class}
FIELDS = {"psalm": psalm_entry(0, 3, []), "refcocom": segment(1), "multi_class": classes(0)}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), value=json_values)
@pytest.mark.parametrize("format_name", OPENED)
def test_no_value_of_a_field_makes_a_reader_fail(
    tmp_path_factory: pytest.TempPathFactory, format_name: str, data: Any, value: Any
) -> None:
    field = data.draw(st.sampled_from([*sorted(FIELDS[format_name]), None]))
    right = FIELDS[format_name]
    broken = value if field is None else right | {field: value}
    folder = tmp_path_factory.mktemp("fields")
    if format_name == "psalm":
        write_psalm(folder, "refcoco", "val", [])
        (folder / "refcoco" / "refcoco_val.json").write_text(json.dumps([broken, right]))
    elif format_name == "refcocom":
        write_refcocom(folder, {"val": []}, {"1": mask_png(SHAPE)})
        (folder / "annotations" / "val.json").write_text(json.dumps([broken, right]))
    else:
        write_multi_class(folder, "ade", [right])
        (folder / "ade.jsonl").write_text(f"{json.dumps(broken)}\n{json.dumps(right)}\n")
    images = list(OPENED[format_name](folder).images)
    assert sum(len(image.rows) for image in images) == 2


def painted(shapes: list[dict[str, Any]]) -> np.ndarray:
    """0 background, 1 target, 255 ignore: pixel by pixel, as the data set's description says."""
    regions = [
        (each["label"], polygon_mask([[value for point in each["points"] for value in point]]))
        for each in shapes
        if each["label"] != "flag"
    ]
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    for label, region in sorted(regions, key=lambda item: -int(item[1].sum())):
        canvas[region == 1] = 255 if label == "ignore" else 1
    return canvas


def canvas_of(record: ReferringRecord) -> np.ndarray:
    canvas = decoded(record)
    for item in record.instances:
        assert not (mask_arithmetic.decode(item.rle) & (canvas == 0)).any()
    if record.ignored is not None:
        assert not canvas[record.ignored].any()
        canvas[record.ignored] = 255
    return canvas


def test_reason_seg_is_painted_larger_outlines_first(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "reason_seg")
    shapes = {
        "one": [shape("target", 3, 4, 13, 10)],
        "hole": [shape("ignore", 6, 6, 9, 9), shape("target", 3, 4, 20, 16)],
        "island": [shape("target", 6, 6, 9, 9), shape("ignore", 3, 4, 20, 16)],
        "two": [shape("target", 2, 2, 8, 8), shape("target", 20, 3, 30, 9), shape("flag", 0, 0, 40, 24)],
        "nested": [shape("target", 5, 5, 9, 9), shape("ignore", 4, 4, 10, 10), shape("target", 0, 0, 3, 3)],
        "outside": [shape("target", -5, -5, 10, 10), shape("ignore", 30, 10, 60, 40)],
    }
    for name, given_ in shapes.items():
        write_reason(path, "val", name, given_)
    report, output = prepared(tmp_path, limit=0.0)
    assert_accounted_for(report, output, len(shapes))
    records = records_of(output, "val")
    for name, given_ in shapes.items():
        np.testing.assert_array_equal(canvas_of(records[f"val/{name}"]), painted(given_), err_msg=name)
    assert [len(records[f"val/{name}"].instances) for name in shapes] == [1, 1, 1, 2, 2, 1]
    assert [records[f"val/{name}"].ignore is None for name in ("one", "two")] == [True, True]

    rows = ShardRows(output, REFERRING_SCHEMA, None)
    images = {row["image_id"]: BenchmarkImage.from_row(row) for row in map(rows.row, range(len(rows)))}
    (question,) = images["val/hole"].questions("standard")
    hole = painted(shapes["hole"])
    for mask, iou in ((hole > 0, 1.0), (hole == 1, 1.0), (hole == 255, 0.0)):
        assert sample_row(question, Prediction(mask=mask, asked=""), "model", "full")["iou"] == iou


def test_pixels_to_ignore_shrink_with_their_image(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "reason_seg")
    write_reason(path, "train", "a", [shape("ignore", 6, 6, 9, 9), shape("target", 3, 4, 20, 16)])
    given_ = context(tmp_path, "prepare_referring", "set")
    parameters = {"datasets": {"set": {}}, "images": {"encoding": "png", "max_side": WIDTH // 2}}
    prepare_referring.run(prepare_referring.Config.model_validate(parameters), given_)
    (record,) = records_of(given_.output).values()
    whole = painted([shape("ignore", 6, 6, 9, 9), shape("target", 3, 4, 20, 16)])
    half = mask_arithmetic.resize_nearest(whole, HEIGHT // 2, WIDTH // 2)
    np.testing.assert_array_equal(canvas_of(record), half)
    assert (half == 255).any()


corners = st.tuples(st.integers(-4, 40), st.integers(-4, 24), st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=40, deadline=None)
@given(
    boxes=st.lists(
        st.tuples(st.sampled_from(["target", "ignore", "flag"]), corners),
        min_size=1,
        max_size=6,
        unique_by=lambda each: each[1][2] * each[1][3],
    )
)
def test_any_outlines_are_painted_as_pixels_would_be(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[Any]
) -> None:
    shapes = [shape(label, x, y, x + width, y + height) for label, (x, y, width, height) in boxes]
    # Outlines cut by the border may be equally large; which is on top is then not said.
    areas = [int(polygon_mask([sum(each["points"], [])]).sum()) for each in shapes]
    if len(set(areas)) < len(areas):
        return
    folder = tmp_path_factory.mktemp("reason")
    write_reason(folder, "train", "a", shapes)
    (image,) = open_reason_seg(folder).images
    (row,) = image.rows
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    for mask in row.masks:
        canvas |= coco.decode(mask.segmentation)
    if row.ignore is not None:
        canvas[mask_arithmetic.decode(row.ignore) == 1] = 255
    np.testing.assert_array_equal(canvas, painted(shapes))


def test_reason_seg_texts_of_both_encodings_and_other_questions(tmp_path: Path) -> None:
    target = [shape("target", 3, 4, 13, 10)]
    write_reason(tmp_path, "train", "a", target, ["the café’s cup"], encoding="cp1252")
    write_reason(tmp_path, "train", "b", target, ["the café’s cup", "a mug"], encoding="utf-8-sig")
    write_reason(tmp_path, "val", "a", target, ["cup"], is_sentence=False)
    explanatory = [
        {"query": "What holds the drink?", "outputs": "The cup.", "image": "a.jpg", "json": "a.json"},
        {"query": "a mug", "outputs": "", "image": "b.jpg", "json": "b.json"},
        {"query": "What?", "outputs": "", "image": "../val/x.jpg", "json": "x.json"},
        {"outputs": "", "image": "a.jpg", "json": "a.json"},
        "nothing",
    ]
    (tmp_path / "explanatory").mkdir()
    (tmp_path / "explanatory" / "train.json").write_text(json.dumps(explanatory))
    dataset = open_reason_seg(tmp_path)
    rows = {row.row_id: row for image in dataset.images for row in image.rows}
    assert len(rows) == dataset.count == 6
    assert rows["train/a"].expressions == ("the café’s cup", "What holds the drink?")
    assert rows["train/b"].expressions == ("the café’s cup", "a mug")
    assert rows["val/a"].expressions == ("cup",)
    problems = [row.problem.rule for row in rows.values() if row.problem]
    assert problems == ["annotation_exists", "fields_complete", "fields_complete"]
    only_val = open_reason_seg(tmp_path, Selection(splits=("val",)))
    assert [image.image_id for image in only_val.images] == ["val/a"]
    assert only_val.rows_of_other_splits == 5


RIGHT_SHAPES = [shape("target", 3, 4, 13, 10)]
BROKEN_REASONS: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"text": []}, "has_expression"),
    "blank text": ({"text": [" "]}, "expression_not_empty"),
    "text of numbers": ({"text": [3]}, "fields_complete"),
    "no is_sentence": ({"is_sentence": None}, "fields_complete"),
    "no shapes": ({"shapes": None}, "fields_complete"),
    "only ignored": ({"shapes": [shape("ignore", 3, 4, 9, 9)]}, "target_has_mask"),
    "covered whole": (
        {"shapes": [shape("ignore", 3, 4, 9, 9), shape("target", 3, 4, 9, 9)]},
        "target_has_mask",
    ),
    "far outside": ({"shapes": [shape("target", 0, 0, 10**9, 9)]}, "mask_readable"),
    "circle": ({"shapes": [shape("target", 3, 4, 9, 9, kind="circle")]}, "fields_complete"),
    "two points": ({"shapes": [RIGHT_SHAPES[0] | {"points": [[1, 2], [3, 4]]}]}, "mask_readable"),
    "a point of three": ({"shapes": [RIGHT_SHAPES[0] | {"points": [[1, 2, 3]] * 4}]}, "fields_complete"),
    "NaN": ({"shapes": [RIGHT_SHAPES[0] | {"points": [[1, float("nan")]] * 4}]}, "numbers_finite"),
    "1 MB": ({"text": ["why " * 2**18]}, "expression_not_too_long"),
}
BROKEN_FILES: dict[str, tuple[str, bytes, str]] = {
    "no json": ("json", b"{", "annotations_readable"),
    "empty json": ("json", b"", "annotations_readable"),
    "utf-16": ("json", '{"text": []}'.encode("utf-16"), "annotations_readable"),
    "neither encoding": ("json", b'{"text": ["\x81\x8d"]}', "annotations_readable"),
    "a list": ("json", b"[]", "fields_complete"),
    "deep": ("json", b"[" * 100_000, "annotations_readable"),
    "lone surrogate": ("json", b'{"text": ["\\ud800"]}', "fields_complete"),
    "empty image": ("jpg", b"", "image_decodes"),
    "cut image": ("jpg", jpeg()[:-200], "image_decodes"),
    "text image": ("jpg", b"hello", "image_decodes"),
}


def test_wrong_reasons_are_quarantined_and_no_others(tmp_path: Path) -> None:
    path = acquired(tmp_path, "set", "reason_seg")
    for number, (changes, _) in enumerate(BROKEN_REASONS.values()):
        write_reason(path, "val", f"a{number:02d}", **({"shapes": RIGHT_SHAPES} | changes))
    for number, (suffix, data, _) in enumerate(BROKEN_FILES.values()):
        write_reason(path, "val", f"b{number:02d}", RIGHT_SHAPES)
        (path / "val" / f"b{number:02d}.{suffix}").write_bytes(data)
    for name in ("c0", "c1", "c2", "right"):
        write_reason(path, "val", name, RIGHT_SHAPES)
    (path / "val" / "c0.jpg").unlink()
    (path / "val" / "c1.json").unlink()
    (path / "val" / "c2.json").unlink()
    (path / "val" / "c2.json").mkdir()
    rules = [rule for _, rule in BROKEN_REASONS.values()] + [rule for *_, rule in BROKEN_FILES.values()]
    rules += ["image_exists", "annotations_readable", "annotations_readable"]
    assert_quarantined(*prepared(tmp_path), rules, ["val/right"])


OPEN = {**OPENED, "reason_seg": open_reason_seg}


def write_one(folder: Path, format_name: str) -> None:
    """One right row."""
    if format_name == "psalm":
        write_psalm(folder, "refcoco", "val", [psalm_entry(0, 3, [coco_annotation(1, 3)])])
    elif format_name == "refcocom":
        write_refcocom(folder, {"val": [segment(1)]}, {"1": mask_png(SHAPE)})
    elif format_name == "multi_class":
        write_multi_class(folder, "ade", [classes(0)])
    else:
        write_reason(folder, "val", "a", RIGHT_SHAPES)


@pytest.mark.parametrize("failure", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "gone")])
@pytest.mark.parametrize(
    ("format_name", "suffix", "rule"),
    [
        ("psalm", ".jpg", "image_exists"),
        ("refcocom", ".jpg", "image_exists"),
        ("refcocom", ".png", "mask_readable"),
        ("multi_class", ".jpg", "image_exists"),
        ("multi_class", ".png", "mask_readable"),
        ("reason_seg", ".jpg", "image_exists"),
        ("reason_seg", ".json", "annotations_readable"),
    ],
)
def test_a_file_that_cannot_be_read_or_vanishes_costs_its_row_only(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format_name: str,
    suffix: str,
    rule: str,
    failure: OSError,
) -> None:
    write_one(tmp_path, format_name)
    read_bytes = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path.suffix == suffix:
            raise failure
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    (image,) = OPEN[format_name](tmp_path).images
    (row,) = image.rows
    problem = image.problem or row.problem
    assert problem is not None
    assert problem.rule == rule
    assert str(failure.strerror) in problem.value
    assert str(tmp_path) not in problem.value


def damaged_bytes(data: st.DataObject, content: bytes) -> bytes:
    """The content with a piece of it cut out, doubled or replaced."""
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(len(content), start + 40)))
    new = data.draw(st.sampled_from([b"", content[start:stop] * 2]) | st.binary(max_size=20))
    return content[:start] + new + content[stop:]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("format_name", OPEN)
def test_no_damage_to_a_file_makes_a_reader_fail(
    tmp_path_factory: pytest.TempPathFactory, format_name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    write_one(folder, format_name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[data.draw(st.integers(0, len(files) - 1))]
    path.write_bytes(damaged_bytes(data, path.read_bytes()))
    try:
        dataset = OPEN[format_name](folder)
    except InputError:
        return
    images = [measure_image(raw, Convention(), 10**6) for raw in dataset.images]
    assert dataset.count == len(images)
    for image in images:
        for row in image.rows:
            problems = [image.problem, row.raw.problem, *(mask.problem for mask in row.masks)]
            for problem in problems:
                assert problem is None or (problem.value and len(problem.value) <= 200)


outlines = st.lists(
    st.lists(
        st.tuples(st.floats(-10, WIDTH + 10, width=32), st.floats(-10, HEIGHT + 10, width=32)),
        min_size=3,
        max_size=9,
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=80, deadline=None)
@given(polygons=outlines)
def test_polygons_and_both_run_lengths_are_those_of_pycocotools(polygons: list[Any]) -> None:
    flat = [[value for point in points for value in point] for points in polygons]
    truth = polygon_mask(flat)
    for segmentation in (flat, uncompressed(truth), rle(truth)):
        mask = measure_mask(RawMask(mask_id="1", segmentation=segmentation), (WIDTH, HEIGHT), Convention())
        assert mask.rle is not None
        np.testing.assert_array_equal(mask_arithmetic.decode(mask.rle), truth)
        assert mask.values["area"] == truth.sum()
