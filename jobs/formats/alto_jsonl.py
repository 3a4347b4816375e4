"""ALToLLM's training data: `data_seg.json` names jsonl files of image, mask PNG and conversation."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_contracts.errors import InputError
from jobs.formats.mask_png import read_mask_png
from jobs.formats.raw import (
    Fields,
    ProblemError,
    RawDataset,
    RawImage,
    RawMask,
    RawRow,
    Text,
    load_json_file,
    named_or,
    parse_fields,
    parse_json,
    printable,
    read_bytes,
    safe_path,
    text_of,
    unnamed_image,
)
from jobs.formats.selection import WHOLE, Selection

# The format knows no splits, only named sets; a set of this name is not for training.
VALIDATION = "val"
REFERENCE = re.compile(r"<ref>(.*?)</ref>", re.DOTALL)


class Turn(Fields):
    value: Text


class JsonlRow(Fields):
    image: Text
    mask: Text
    conversations: list[Turn]


class SourceEntry(Fields):
    root: Text
    annotation: Text


class JsonlLine(NamedTuple):
    """row: the parsed JSON, or why it could not be parsed."""

    row_id: str
    split: str | None
    row: Any


def open_alto_jsonl(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """The sets that `data_seg.json` names, which stand for splits in a selection.

    Raises InputError where it or a jsonl file cannot be read.
    """
    selection.refuse(folder, "alto_jsonl", "annotations")
    index_path = folder / "data_seg.json"
    index = load_json_file(index_path)
    if not isinstance(index, dict):
        raise InputError(f"{index_path}: an object of data sets expected")
    found: list[tuple[str | None, tuple[Path, JsonlLine]]] = []
    for name, entry in index.items():
        try:
            fields = parse_fields(SourceEntry, entry)
            root, annotation = _located(folder, fields)
            lines = read_bytes(annotation, "file_exists").split(b"\n")
        except ProblemError as error:
            raise InputError(f"{index_path}: data set {name!r}: {error}") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                item = JsonlLine(
                    f"{printable(name)}-{number}",
                    VALIDATION if name == VALIDATION else None,
                    _parse_line(line),
                )
                found.append((name, (root, item)))
    chosen, others = selection.rows_of_splits(found, index_path)
    rows_of_image: dict[tuple[Path, str], list[JsonlLine]] = defaultdict(list)
    for root, item in chosen:
        rows_of_image[(root, named_or(item.row, "image", item.row_id))].append(item)
    return RawDataset(len(rows_of_image), _read_images(folder, rows_of_image), others)


def _located(folder: Path, fields: SourceEntry) -> tuple[Path, Path]:
    """Root of the relative paths, and the jsonl; the root's own folder may have been left out in copying."""
    root = safe_path(folder, fields.root)
    if root.is_dir():
        return root, safe_path(folder, fields.annotation)
    return folder, safe_path(folder, fields.annotation.removeprefix(f"{fields.root}/"))


def _parse_line(line: bytes) -> Any:
    try:
        return parse_json(line, "line_readable")
    except ProblemError as error:
        return error


def _read_images(folder: Path, rows_of_image: dict[tuple[Path, str], list[JsonlLine]]) -> Iterator[RawImage]:
    for (root, image), lines in rows_of_image.items():
        # Sets with roots of their own may name different images alike.
        image_id = image if root == folder else f"{root.relative_to(folder).as_posix()}/{image}"
        rows = tuple(_read_row(line, root) for line in lines)
        if text_of(lines[0].row, "image") is None:
            yield unnamed_image(image_id, image, rows)
            continue
        try:
            data = read_bytes(safe_path(root, image), "image_exists")
        except ProblemError as error:
            yield RawImage(image_id=image_id, source_file=image, rows=rows, problem=error.problem)
        else:
            yield RawImage(image_id=image_id, source_file=image, rows=rows, data=data)


def _read_row(line: JsonlLine, root: Path) -> RawRow:
    try:
        if isinstance(line.row, ProblemError):
            raise line.row
        fields = parse_fields(JsonlRow, line.row)
        expressions = [text for turn in fields.conversations for text in REFERENCE.findall(turn.value)]
        mask = RawMask(
            mask_id=fields.mask,
            segmentation=read_mask_png(safe_path(root, fields.mask)),
        )
    except ProblemError as error:
        return RawRow(row_id=line.row_id, split=line.split, problem=error.problem)
    return RawRow(row_id=line.row_id, split=line.split, masks=(mask,), expressions=tuple(expressions))
