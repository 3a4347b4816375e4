"""Files of published benchmarks that are damaged, vanish or cannot be read: no reader fails."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import InputError
from data_contracts.rules import Convention
from jobs.formats.multi_class import open_multi_class
from jobs.formats.psalm import open_psalm
from jobs.formats.reason_seg import open_reason_seg
from jobs.formats.refcocom import open_refcocom
from jobs.preparation.measuring import measure_image
from tests.jobs.published_data import (
    classes,
    mask_png,
    psalm_entry,
    segment,
    shape,
    write_multi_class,
    write_psalm,
    write_reason,
    write_refcocom,
)
from tests.jobs.raw_data import box_mask, coco_annotation

SHAPE = box_mask(3, 4, 10, 6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OPENED = {
    "psalm": open_psalm,
    "refcocom": open_refcocom,
    "multi_class": open_multi_class,
    "reason_seg": open_reason_seg,
}
FIELDS = {"psalm": psalm_entry(0, 3, []), "refcocom": segment(1), "multi_class": classes(0)}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), value=json_values)
@pytest.mark.parametrize("format_name", FIELDS)
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


def write_one(folder: Path, format_name: str) -> None:
    """One right row."""
    if format_name == "psalm":
        write_psalm(folder, "refcoco", "val", [psalm_entry(0, 3, [coco_annotation(1, 3)])])
    elif format_name == "refcocom":
        write_refcocom(folder, {"val": [segment(1)]}, {"1": mask_png(SHAPE)})
    elif format_name == "multi_class":
        write_multi_class(folder, "ade", [classes(0)])
    else:
        write_reason(folder, "val", "a", [shape("target", 3, 4, 13, 10)])


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
    (image,) = OPENED[format_name](tmp_path).images
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
@pytest.mark.parametrize("format_name", OPENED)
def test_no_damage_to_a_file_makes_a_reader_fail(
    tmp_path_factory: pytest.TempPathFactory, format_name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    write_one(folder, format_name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[data.draw(st.integers(0, len(files) - 1))]
    path.write_bytes(damaged_bytes(data, path.read_bytes()))
    try:
        dataset = OPENED[format_name](folder)
    except InputError:
        return
    images = [measure_image(raw, Convention(), 10**6) for raw in dataset.images]
    assert dataset.count == len(images)
    for image in images:
        for row in image.rows:
            problems = [image.problem, row.raw.problem, *(mask.problem for mask in row.masks)]
            for problem in problems:
                assert problem is None or (problem.value and len(problem.value) <= 200)
