"""ALToLLM's open-vocabulary sets (`ade.jsonl`, `pascal_ctx.jsonl`, `pascal_voc.jsonl`).

A line asks for all pixels of some classes of an image at once, by their names joined with commas.
"""

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
    named_or,
    parse_fields,
    parse_json,
    read_bytes,
    safe_path,
    text_of,
    unnamed_image,
)
from jobs.formats.selection import WHOLE, Selection


class ClassesRow(Fields):
    image: Text
    mask: Text
    description: list[Text]


class Line(NamedTuple):
    """content: the parsed JSON, or why it could not be parsed."""

    row_id: str
    content: Any


def open_multi_class(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """Raises InputError without a jsonl file, and where several leave open which is meant."""
    selection.refuse(folder, "multi_class", "splits")
    path = selection.one_of(sorted(folder.glob("*.jsonl")), folder, "files *.jsonl")
    try:
        lines = read_bytes(path, "file_exists").split(b"\n")
    except ProblemError as error:
        raise InputError(f"{path}: {error}") from None
    lines_of_image: dict[str, list[Line]] = defaultdict(list)
    for number, data in enumerate(lines, start=1):
        if data.strip():
            line = Line(f"{path.stem}-{number}", _parse(data))
            lines_of_image[named_or(line.content, "image", line.row_id)].append(line)
    return RawDataset(len(lines_of_image), _read_images(folder, path.name, lines_of_image))


def _parse(data: bytes) -> Any:
    try:
        return parse_json(data, "line_readable")
    except ProblemError as error:
        return error


def _read_images(folder: Path, source_file: str, lines_of_image: dict[str, list[Line]]) -> Iterator[RawImage]:
    for image, lines in lines_of_image.items():
        rows = tuple(_read_row(folder, line) for line in lines)
        if text_of(lines[0].content, "image") is None:
            yield unnamed_image(image, source_file, rows)
            continue
        try:
            data = read_bytes(safe_path(folder, image), "image_exists")
        except ProblemError as error:
            yield RawImage(image_id=image, source_file=source_file, rows=rows, problem=error.problem)
        else:
            yield RawImage(image_id=image, source_file=source_file, rows=rows, data=data)


def _read_row(folder: Path, line: Line) -> RawRow:
    try:
        if isinstance(line.content, ProblemError):
            raise line.content
        fields = parse_fields(ClassesRow, line.content)
        if not all(name.strip() for name in fields.description):
            raise ProblemError("fields_complete", "description: an empty name")
        mask = RawMask(
            mask_id=fields.mask,
            segmentation=read_mask_png(safe_path(folder, fields.mask)),
            category=fields.description[0] if len(fields.description) == 1 else None,
        )
    except ProblemError as error:
        return RawRow(row_id=line.row_id, problem=error.problem)
    expressions = (", ".join(fields.description),) if fields.description else ()
    return RawRow(row_id=line.row_id, masks=(mask,), expressions=expressions)
