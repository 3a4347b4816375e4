"""PSALM's converted benchmarks: `{name}/{name}_{split}.json`, each entry whole in itself.

An entry holds its image's description, the expressions (`instruction`) and copies of their COCO
annotations (`anns`); one without annotations means nothing in the image.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import FiniteFloat

from data_contracts.errors import InputError
from jobs.formats.coco import COCO_NUMBERING, CocoImage, read_image_file
from jobs.formats.raw import (
    Fields,
    Identifier,
    ProblemError,
    RawDataset,
    RawImage,
    RawMask,
    RawRow,
    Text,
    as_box,
    identifier_of,
    load_json_file,
    parse_fields,
)
from jobs.formats.selection import WHOLE, Selection


class Instruction(Fields):
    sent: Text


class ImageOfEntry(Fields):
    image: Text
    image_info: CocoImage


class Entry(Fields):
    instruction: list[Instruction]
    anns: list[Any]


class EntryAnnotation(Fields):
    """bbox, area: claims that a conversion may leave out."""

    id: Identifier
    image_id: Identifier
    segmentation: Any
    bbox: list[FiniteFloat] | None = None
    area: FiniteFloat | None = None


class Numbered(NamedTuple):
    """row_id: unique over all splits."""

    row_id: str
    split: str
    entry: Any


def open_psalm(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """Raises InputError where a file is no list, and where several data sets leave open which is meant."""
    splits_of: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*/*_*.json")):
        if path.name.startswith(f"{path.parent.name}_"):
            splits_of[path.parent].append(path)
    name = selection.one_of(list(splits_of), folder, "folders NAME with NAME_SPLIT.json")
    entries = [entry for path in splits_of[name] for entry in _numbered(path)]
    chosen, others = selection.rows_of_splits(((entry.split, entry) for entry in entries), name)
    entries_of_image: dict[str, list[Numbered]] = defaultdict(list)
    for entry in chosen:
        info = entry.entry.get("image_info") if isinstance(entry.entry, dict) else None
        entries_of_image[identifier_of(info, "id", entry.row_id)].append(entry)
    return RawDataset(len(entries_of_image), _read_images(folder, name.name, entries_of_image), others)


def _numbered(path: Path) -> Iterator[Numbered]:
    entries = load_json_file(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: a list of entries expected, found {type(entries).__name__}")
    split = path.stem.removeprefix(f"{path.parent.name}_")
    for number, entry in enumerate(entries):
        yield Numbered(f"{split}-{identifier_of(entry, 'new_img_id', f'#{number}')}", split, entry)


def _read_images(folder: Path, name: str, entries_of_image: dict[str, list[Numbered]]) -> Iterator[RawImage]:
    for image_id, entries in entries_of_image.items():
        rows = tuple(_read_row(entry, image_id) for entry in entries)
        files = dict.fromkeys(f"{name}/{name}_{entry.split}.json" for entry in entries)
        source_file = ", ".join(files)
        try:
            fields = parse_fields(ImageOfEntry, entries[0].entry)
            yield RawImage(
                image_id=image_id,
                image_numbering=COCO_NUMBERING,
                source_file=source_file,
                rows=rows,
                data=read_image_file(folder, fields.image),
                stated_size=(fields.image_info.width, fields.image_info.height),
            )
        except ProblemError as error:
            yield RawImage(image_id=image_id, source_file=source_file, rows=rows, problem=error.problem)


def _read_row(entry: Numbered, image_id: str) -> RawRow:
    try:
        fields = parse_fields(Entry, entry.entry)
    except ProblemError as error:
        return RawRow(row_id=entry.row_id, split=entry.split, problem=error.problem)
    return RawRow(
        row_id=entry.row_id,
        masks=tuple(
            _read_mask(annotation, number, image_id) for number, annotation in enumerate(fields.anns)
        ),
        expressions=tuple(instruction.sent for instruction in fields.instruction),
        no_target=not fields.anns,
        split=entry.split,
    )


def _read_mask(annotation: Any, number: int, image_id: str) -> RawMask:
    mask_id = identifier_of(annotation, "id", f"#{number}")
    try:
        fields = parse_fields(EntryAnnotation, annotation)
        if fields.image_id != image_id:
            raise ProblemError("annotation_exists", f"annotation {mask_id} is of image {fields.image_id}")
        return RawMask(
            mask_id=mask_id,
            segmentation=fields.segmentation,
            stated_area=fields.area,
            stated_box=None if fields.bbox is None else as_box(fields.bbox),
        )
    except ProblemError as error:
        return RawMask(mask_id=mask_id, problem=error.problem)
