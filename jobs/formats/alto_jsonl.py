"""ALToLLM's training data: `data_seg.json` names jsonl files of image, mask PNG and conversation."""

import io
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from alto_models import masks as mask_arithmetic
from data_contracts.errors import InputError
from jobs.formats.raw import (
    Fields,
    ProblemError,
    RawDataset,
    RawImage,
    RawMask,
    RawRow,
    Text,
    identifier_of,
    load_json_file,
    parse_fields,
    parse_json,
    printable,
    read_bytes,
    safe_path,
)

# The masks are antialiased; a pixel belongs to one from half grey on.
MASK_THRESHOLD = 128
MASK_PIXEL_LIMIT = 100_000_000
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


def open_alto_jsonl(folder: Path) -> RawDataset:
    """All sets `data_seg.json` names. Raises InputError where it or a jsonl file cannot be read."""
    index_path = folder / "data_seg.json"
    index = load_json_file(index_path)
    if not isinstance(index, dict):
        raise InputError(f"{index_path}: an object of data sets expected")
    rows_of_image: dict[tuple[Path, str], list[JsonlLine]] = defaultdict(list)
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
                rows_of_image[(root, identifier_of(item.row, "image", item.row_id))].append(item)
    return RawDataset(len(rows_of_image), _read_images(rows_of_image))


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


def _read_images(rows_of_image: dict[tuple[Path, str], list[JsonlLine]]) -> Iterator[RawImage]:
    for (root, image), lines in rows_of_image.items():
        rows = tuple(_read_row(line, root) for line in lines)
        try:
            data = read_bytes(safe_path(root, image), "image_exists")
        except ProblemError as error:
            yield RawImage(image_id=image, source_file=image, rows=rows, problem=error.problem)
        else:
            yield RawImage(image_id=image, source_file=image, rows=rows, data=data)


def _read_row(line: JsonlLine, root: Path) -> RawRow:
    try:
        if isinstance(line.row, ProblemError):
            raise line.row
        fields = parse_fields(JsonlRow, line.row)
        expressions = [text for turn in fields.conversations for text in REFERENCE.findall(turn.value)]
        mask = RawMask(
            mask_id=fields.mask,
            segmentation=_read_mask(read_bytes(safe_path(root, fields.mask), "mask_readable")),
        )
    except ProblemError as error:
        return RawRow(row_id=line.row_id, split=line.split, problem=error.problem)
    return RawRow(row_id=line.row_id, split=line.split, masks=(mask,), expressions=tuple(expressions))


def _read_mask(data: bytes) -> dict[str, Any]:
    """COCO segmentation of a grey PNG. Raises ProblemError."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > MASK_PIXEL_LIMIT:
                raise ValueError(f"{image.width} x {image.height} pixels")
            rle = mask_arithmetic.encode(np.asarray(image.convert("L")) >= MASK_THRESHOLD)
    except Exception as error:  # decoders raise nearly anything for damaged bytes
        raise ProblemError("mask_readable", error) from None
    return {"size": [rle.height, rle.width], "counts": rle.counts}
