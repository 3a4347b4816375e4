"""RefCOCOm: expressions of parts and objects, `annotations/{split}.json` with `masks/{segment_id}.png`.

Images are COCO's, named as in COCO 2014.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data_contracts.errors import InputError
from jobs.formats.coco import COCO_NUMBERING, read_image_file
from jobs.formats.mask_png import read_mask_png
from jobs.formats.raw import (
    Fields,
    Identifier,
    ProblemError,
    RawDataset,
    RawImage,
    RawMask,
    RawRow,
    Text,
    identifier_of,
    load_json_file,
    named_or,
    parse_fields,
    safe_path,
    text_of,
    unnamed_image,
)
from jobs.formats.selection import WHOLE, Selection

COCO_NAME = re.compile(r"COCO_[a-z]+\d{4}_0*(\d+)\.jpg")


class Sentence(Fields):
    sent: Text


class Segment(Fields):
    img_name: Text
    segment_id: Identifier
    sentences: list[Text | Sentence]


class Numbered(NamedTuple):
    """row_id: unique over all splits."""

    row_id: str
    split: str
    segment: Any


def open_refcocom(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """Raises InputError where there is no file of annotations, or one is no list."""
    selection.refuse(folder, "refcocom", "annotations")
    paths = sorted((folder / "annotations").glob("*.json"))
    if not paths:
        raise InputError(f"{folder / 'annotations'}: no SPLIT.json; the data set is incomplete")
    segments = [segment for path in paths for segment in _numbered(path)]
    chosen, others = selection.rows_of_splits(((item.split, item) for item in segments), folder)
    segments_of_image: dict[str, list[Numbered]] = defaultdict(list)
    for item in chosen:
        segments_of_image[named_or(item.segment, "img_name", item.row_id)].append(item)
    return RawDataset(len(segments_of_image), _read_images(folder, segments_of_image), others)


def _numbered(path: Path) -> Iterator[Numbered]:
    segments = load_json_file(path)
    if not isinstance(segments, list):
        raise InputError(f"{path}: a list of segments expected, found {type(segments).__name__}")
    for number, segment in enumerate(segments):
        row_id = f"{path.stem}-{identifier_of(segment, 'segment_id', f'#{number}')}"
        yield Numbered(row_id, path.stem, segment)


def _read_images(folder: Path, segments_of_image: dict[str, list[Numbered]]) -> Iterator[RawImage]:
    for name, segments in segments_of_image.items():
        rows = tuple(_read_row(folder, item) for item in segments)
        source_file = ", ".join(dict.fromkeys(f"annotations/{item.split}.json" for item in segments))
        if text_of(segments[0].segment, "img_name") is None:
            yield unnamed_image(name, source_file, rows)
            continue
        coco = COCO_NAME.fullmatch(name)
        found = RawImage(
            image_id=coco[1] if coco else name,
            image_numbering=COCO_NUMBERING if coco else None,
            source_file=source_file,
            rows=rows,
        )
        yield found.filled(partial(read_image_file, folder, name))


def _read_row(folder: Path, item: Numbered) -> RawRow:
    try:
        fields = parse_fields(Segment, item.segment)
        path = safe_path(folder / "masks", f"{fields.segment_id}.png")
        mask = RawMask(mask_id=fields.segment_id, segmentation=read_mask_png(path))
    except ProblemError as error:
        return RawRow(row_id=item.row_id, split=item.split, problem=error.problem)
    expressions = tuple(each if isinstance(each, str) else each.sent for each in fields.sentences)
    return RawRow(row_id=item.row_id, split=item.split, masks=(mask,), expressions=expressions)
