"""Damaged text in training sets: the row is named, and nothing else is lost."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from alto_models.data.referring import ReferringImages
from data_contracts.errors import InputError
from jobs import prepare_referring
from tests.jobs.published_data import mask_png
from tests.jobs.raw_data import (
    acquired,
    box_mask,
    coco_annotation,
    context,
    jpeg,
    reference,
    sentence,
    write_coco,
)
from tests.jobs.test_prepare import quarantined

# What an expression holds, and the rule it breaks.
TEXTS: dict[str, tuple[str, str | None]] = {
    "right": ("the café’s cup", None),
    "byte order mark before words": ("\ufeffcup", None),
    "empty": ("", "expression_not_empty"),
    "blanks": (" \t\u00a0\n", "expression_not_empty"),
    "byte order mark alone": ("\ufeff", "expression_not_empty"),
    "1 MB": ("cup " * 2**18, "expression_not_too_long"),
    "lone surrogate": ("cup \ud83d", "fields_complete"),
}


def line(text: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\nSegment <ref>{text}</ref>."}]
    return {"image": "images/0.jpg", "mask": "masks/0.png", "conversations": turns}


def write_alto(folder: Path, lines: list[bytes]) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir()
    (folder / "images" / "0.jpg").write_bytes(jpeg())
    (folder / "masks" / "0.png").write_bytes(mask_png(box_mask(3, 4, 10, 6)))
    (folder / "a.jsonl").write_bytes(b"\n".join(lines))
    (folder / "data_seg.json").write_text(json.dumps({"toy": {"root": "r", "annotation": "r/a.jsonl"}}))


def write_set(folder: Path, format_name: str, texts: list[str]) -> None:
    """One row for each text, in a format that says it its own way."""
    if format_name == "alto_jsonl":
        write_alto(folder, [json.dumps(line(text)).encode() for text in texts])
    elif format_name == "coco_instances":
        write_coco(folder, [1], [coco_annotation(n, 1, n) for n in range(len(texts))])
        content = json.loads((folder / "instances.json").read_text())
        content["categories"] = [{"id": number, "name": text} for number, text in enumerate(texts)]
        (folder / "instances.json").write_text(json.dumps(content))
    else:
        write_coco(folder, [1], [coco_annotation(1, 1)])
        ids: Any = 1 if format_name == "refer" else [1]
        rows = [reference(n, 1, ids, sentences=[sentence(text)]) for n, text in enumerate(texts)]
        if format_name == "refer":
            (folder / "refs(unc).p").write_bytes(pickle.dumps(rows, protocol=2))
        else:
            written = [row | {"no_target": False} for row in rows]
            (folder / "grefs(unc).json").write_text(json.dumps(written))


def prepared(folder: Path) -> Path:
    given = context(folder, "prepare_referring", "set")
    parameters = {"datasets": {"set": {}}, "contract": {"max_quarantined_share": 1.0}}
    report = prepare_referring.run(prepare_referring.Config.model_validate(parameters), given)
    figures = report.figures
    assert figures["rows_accepted"] + figures["rows_quarantined"] == figures["rows_read"]  # type: ignore[operator]
    return given.output


def expressions(output: Path) -> list[str]:
    return [
        text for image in ReferringImages(output) for record in image.records for text in record.expressions
    ]


@pytest.mark.parametrize("format_name", ["alto_jsonl", "refer", "grefcoco", "coco_instances"])
def test_a_damaged_expression_costs_its_row_only(tmp_path: Path, format_name: str) -> None:
    write_set(acquired(tmp_path, "set", format_name), format_name, [text for text, _ in TEXTS.values()])
    output = prepared(tmp_path)
    rules = [rule for _, rule in TEXTS.values() if rule]
    if format_name == "coco_instances":
        # A name that is no text leaves its category without one.
        rules[-1] = "category_exists"
    assert [row["rule"] for row in quarantined(output)] == rules
    assert expressions(output) == ["the café’s cup", "cup"]


def test_lines_of_other_encodings_are_named(tmp_path: Path) -> None:
    right = json.dumps(line("cup")).encode()
    cp1252 = json.dumps(line("café"), ensure_ascii=False).encode("cp1252")
    utf_16 = json.dumps(line("cup")).encode("utf-16-le")
    path = acquired(tmp_path, "set", "alto_jsonl")
    write_alto(path, [b"\xef\xbb\xbf" + right, cp1252, utf_16, b"", right + b"\r"])
    output = prepared(tmp_path)
    assert [(row["row_id"], row["rule"]) for row in quarantined(output)] == [
        ("toy-2", "line_readable"),
        ("toy-3", "line_readable"),
    ]
    assert expressions(output) == ["cup", "cup"]


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
@pytest.mark.parametrize("name", ["instances.json", "grefs(unc).json"])
def test_an_index_of_another_encoding_is_named(tmp_path: Path, encoding: str, name: str) -> None:
    path = acquired(tmp_path, "set", "grefcoco")
    write_set(path, "grefcoco", ["cup"])
    content = (path / name).read_text().replace("cup", "café")
    (path / name).write_bytes(content.encode(encoding))
    with pytest.raises(InputError, match=name.replace("(", r"\(").replace(")", r"\)") + ": not JSON"):
        prepared(tmp_path)
