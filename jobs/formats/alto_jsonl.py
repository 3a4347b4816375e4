"""ALToLLM's training data: `data_seg.json` names jsonl files of image, mask PNG and conversation."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_contracts.errors import InputError
from jobs.formats.json_lines import Line, index_lines
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
    parse_fields,
    printable,
    read_within,
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


class NamedLine(NamedTuple):
    """A line of one of the sets. image: as it names it, None where it does not."""

    row_id: str
    split: str | None
    image: str | None
    line: Line


def open_alto_jsonl(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """The sets that `data_seg.json` names, which stand for splits in a selection.

    Raises InputError where it or a jsonl file cannot be read.
    """
    selection.refuse(folder, "alto_jsonl", "annotations")
    index_path = folder / "data_seg.json"
    index = load_json_file(index_path)
    if not isinstance(index, dict):
        raise InputError(f"{index_path}: an object of data sets expected")
    found: list[tuple[str | None, tuple[Path, NamedLine]]] = []
    for name, entry in index.items():
        try:
            fields = parse_fields(SourceEntry, entry)
            root, annotation = _located(folder, fields)
            split = VALIDATION if name == VALIDATION else None
            for line, content in index_lines(annotation):
                row_id = f"{printable(name)}-{line.number}"
                found.append((name, (root, NamedLine(row_id, split, text_of(content, "image"), line))))
        except (ProblemError, InputError) as error:
            raise InputError(f"{index_path}: data set {name!r}: {error}") from None
    chosen, others = selection.rows_of_splits(found, index_path)
    lines_of_image: dict[tuple[Path, str], list[NamedLine]] = defaultdict(list)
    for root, named in chosen:
        lines_of_image[(root, named.row_id if named.image is None else named.image)].append(named)
    return RawDataset(len(lines_of_image), _read_images(folder, lines_of_image), others)


def _located(folder: Path, fields: SourceEntry) -> tuple[Path, Path]:
    """Root of the relative paths, and the jsonl; the root's own folder may have been left out in copying."""
    root = safe_path(folder, fields.root)
    if root.is_dir():
        return root, safe_path(folder, fields.annotation)
    return folder, safe_path(folder, fields.annotation.removeprefix(f"{fields.root}/"))


def _read_images(folder: Path, lines_of_image: dict[tuple[Path, str], list[NamedLine]]) -> Iterator[RawImage]:
    for (root, image), lines in lines_of_image.items():
        # Sets with roots of their own may name different images alike.
        image_id = image if root == folder else f"{root.relative_to(folder).as_posix()}/{image}"
        rows = tuple(_read_row(named, root) for named in lines)
        if lines[0].image is None:
            yield unnamed_image(image_id, image, rows)
            continue
        found = RawImage(image_id=image_id, source_file=image, rows=rows)
        yield found.filled(partial(read_within, root, image, "image_exists"))


def _read_row(named: NamedLine, root: Path) -> RawRow:
    try:
        fields = parse_fields(JsonlRow, named.line.read())
        expressions = [text for turn in fields.conversations for text in REFERENCE.findall(turn.value)]
        mask = RawMask(
            mask_id=fields.mask,
            segmentation=read_mask_png(safe_path(root, fields.mask)),
        )
    except ProblemError as error:
        return RawRow(row_id=named.row_id, split=named.split, problem=error.problem)
    return RawRow(row_id=named.row_id, split=named.split, masks=(mask,), expressions=tuple(expressions))
