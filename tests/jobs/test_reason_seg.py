"""ReasonSeg: outlines painted over one another, two encodings, other questions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from alto_models import masks as mask_arithmetic
from alto_models.data.referring import ReferringRecord
from alto_models.data.shards import ShardRows
from data_contracts.schemas import REFERRING_SCHEMA
from jobs import prepare_referring
from jobs.benchmarking.questions import BenchmarkImage
from jobs.benchmarking.rows import Prediction, sample_row
from jobs.formats.reason_seg import open_reason_seg
from jobs.formats.selection import Selection
from tests.jobs.published_data import (
    polygon_mask,
    shape,
    write_reason,
)
from tests.jobs.published_runs import assert_quarantined, decoded, prepared, records_of
from tests.jobs.raw_data import HEIGHT, WIDTH, acquired, context, jpeg
from tests.jobs.test_prepare import assert_accounted_for


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
