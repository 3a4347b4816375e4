"""POPE: is an object in the image? `coco_pope_{random,popular,adversarial}.json`, a JSON object a line.

Each file asks about the same images; its name says how the objects that are not there were chosen.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_contracts.errors import InputError
from jobs.formats.raw import (
    Fields,
    Identifier,
    Problem,
    ProblemError,
    RawAnswers,
    RawDataset,
    RawImage,
    RawRow,
    Text,
    identifier_of,
    parse_fields,
    parse_json,
    read_bytes,
    text_of,
    unnamed_image,
)
from jobs.formats.selection import WHOLE, Selection
from jobs.formats.vqa_images import ImageFiles

SPLIT = "test"
UNNAMED = ""
QUESTIONS_PATTERN = "**/*pope_*.json"


class PopeRow(Fields):
    question_id: Identifier
    image: Text
    text: Text
    label: Text


class Line(NamedTuple):
    """content: the parsed JSON, or why it could not be parsed. category: random, popular or adversarial."""

    place: str
    category: str
    content: Any


def open_pope(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """All files `*pope_*.json`, or the chosen one. Raises InputError where there is none."""
    selection.refuse(folder, "pope", "splits")
    paths = sorted(folder.glob(QUESTIONS_PATTERN))
    if not paths or selection.annotations is not None:
        paths = [selection.one_of(paths, folder, "files *pope_*.json")]
    lines_of_image: dict[str, list[Line]] = defaultdict(list)
    for path in paths:
        for line in _lines(path):
            name = text_of(line.content, "image")
            lines_of_image[UNNAMED if name is None else name].append(line)
    return RawDataset(len(lines_of_image), _read_images(folder, lines_of_image))


def image_names(path: Path) -> Iterator[str | None]:
    """File names of the images that a file asks about."""
    return (text_of(line.content, "image") for line in _lines(path))


def _lines(path: Path) -> Iterator[Line]:
    category = path.stem.rpartition("pope_")[2]
    try:
        data = read_bytes(path, "file_exists")
    except ProblemError as error:
        raise InputError(f"{path}: {error}") from None
    if data.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"["):
        yield from (
            Line(f"{path.stem}#{n}", category, row) for n, row in enumerate(_array(path, data), start=1)
        )
        return
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = parse_json(line, "line_readable")
        except ProblemError as error:
            content = error
        yield Line(f"{path.stem}#{number}", category, content)


def _array(path: Path, data: bytes) -> list[Any]:
    """Some copies hold one JSON array instead of lines."""
    try:
        rows = parse_json(data, "line_readable")
    except ProblemError as error:
        raise InputError(f"{path}: {error}; acquire the data set again") from None
    return rows if isinstance(rows, list) else [rows]


def _read_images(folder: Path, lines_of_image: dict[str, list[Line]]) -> Iterator[RawImage]:
    files = ImageFiles(folder)
    for name, lines in lines_of_image.items():
        rows = tuple(_read_row(line) for line in lines)
        if name == UNNAMED:
            yield from (unnamed_image(row.row_id, row.row_id, (row,)) for row in rows)
        else:
            yield files.image(name, rows)


def _read_row(line: Line) -> RawRow:
    row_id = f"{line.category}-{identifier_of(line.content, 'question_id', line.place)}"
    try:
        if isinstance(line.content, ProblemError):
            raise line.content
        fields = parse_fields(PopeRow, line.content)
    except ProblemError as error:
        return RawRow(row_id=row_id, split=SPLIT, problem=error.problem)
    if not fields.image:
        problem = Problem(rule="image_exists", value="no name")
        return RawRow(row_id=row_id, split=SPLIT, problem=problem)
    return RawRow(
        row_id=row_id,
        split=SPLIT,
        expressions=(fields.text,),
        answers=RawAnswers(texts=(fields.label.strip().lower(),), category=line.category),
    )
