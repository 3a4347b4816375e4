"""ALToLLM's open-vocabulary sets (`ade.jsonl`, `pascal_ctx.jsonl`, `pascal_voc.jsonl`).

A line asks for all pixels of some classes of an image at once, by their names joined with commas.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

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
    parse_fields,
    read_within,
    safe_path,
    text_of,
    unnamed_image,
)
from jobs.formats.selection import WHOLE, Selection


class ClassesRow(Fields):
    image: Text
    mask: Text
    description: list[Text]


class NamedLine(NamedTuple):
    """image: as the line names it, None where it does not."""

    row_id: str
    image: str | None
    line: Line


def open_multi_class(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """Raises InputError without a jsonl file, and where several leave open which is meant."""
    selection.refuse(folder, "multi_class", "splits")
    path = selection.one_of(sorted(folder.glob("*.jsonl")), folder, "files *.jsonl")
    lines_of_image: dict[str, list[NamedLine]] = defaultdict(list)
    for line, content in index_lines(path):
        named = NamedLine(f"{path.stem}-{line.number}", text_of(content, "image"), line)
        lines_of_image[named.row_id if named.image is None else named.image].append(named)
    return RawDataset(len(lines_of_image), _read_images(folder, path.name, lines_of_image))


def _read_images(
    folder: Path, source_file: str, lines_of_image: dict[str, list[NamedLine]]
) -> Iterator[RawImage]:
    for image, lines in lines_of_image.items():
        rows = tuple(_read_row(folder, named) for named in lines)
        if lines[0].image is None:
            yield unnamed_image(image, source_file, rows)
            continue
        found = RawImage(image_id=image, source_file=source_file, rows=rows)
        yield found.filled(partial(read_within, folder, image, "image_exists"))


def _read_row(folder: Path, named: NamedLine) -> RawRow:
    try:
        fields = parse_fields(ClassesRow, named.line.read())
        if not all(name.strip() for name in fields.description):
            raise ProblemError("fields_complete", "description: an empty name")
        mask = RawMask(
            mask_id=fields.mask,
            segmentation=read_mask_png(safe_path(folder, fields.mask)),
            category=fields.description[0] if len(fields.description) == 1 else None,
        )
    except ProblemError as error:
        return RawRow(row_id=named.row_id, problem=error.problem)
    expressions = (", ".join(fields.description),) if fields.description else ()
    return RawRow(row_id=named.row_id, masks=(mask,), expressions=expressions)
