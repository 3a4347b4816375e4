"""REFER (RefCOCO, RefCOCO+, RefCOCOg) and gRefCOCO: expressions that point into a COCO instances.json."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_contracts.errors import InputError
from jobs.formats.coco import CocoIndex, load_coco_index
from jobs.formats.pickles import load_plain_pickle
from jobs.formats.raw import (
    Fields,
    Identifier,
    ProblemError,
    RawDataset,
    RawImage,
    RawRow,
    Text,
    identifier_of,
    load_json_file,
    parse_fields,
    text_of,
    unnamed_image,
)
from jobs.formats.selection import WHOLE, Selection

NO_TARGET_IDS = ["-1"]
# RefCOCOg's first splits are of objects: one image may be in several. All others are of images.
SPLITS_SHARE_IMAGES = ("refs(google).p",)


class Sentence(Fields):
    sent: Text


class ReferRow(Fields):
    ref_id: Identifier
    ann_id: Identifier
    image_id: Identifier
    split: Text
    sentences: list[Sentence]


class GrefRow(Fields):
    ref_id: Identifier
    ann_id: list[Identifier]
    image_id: Identifier
    split: Text
    no_target: bool
    sentences: list[Sentence]


def open_refer(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """`refs(….p)` beside `instances.json`. Raises InputError without either, and where several `.p` files
    leave open which split (unc, google, umd) is meant."""
    path = selection.one_of(sorted(folder.glob("refs*.p")), folder, "files refs*.p")
    return _open(folder, path, load_plain_pickle(path), _refer_row, selection)


def open_grefcoco(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """`grefs(….json)` beside `instances.json`. Raises InputError as open_refer."""
    path = selection.one_of(sorted(folder.glob("grefs*.json")), folder, "files grefs*.json")
    return _open(folder, path, load_json_file(path), _gref_row, selection)


def _open(
    folder: Path,
    path: Path,
    refs: Any,
    read_row: Callable[[Any, str, CocoIndex], RawRow],
    selection: Selection,
) -> RawDataset:
    if not isinstance(refs, list):
        raise InputError(f"{path}: a list of references expected, found {type(refs).__name__}")
    index = load_coco_index(folder / "instances.json", folder)
    rows = ((text_of(ref, "split"), (number, ref)) for number, ref in enumerate(refs))
    chosen, others = selection.rows_of_splits(rows, path)
    refs_of_image: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for number, ref in chosen:
        refs_of_image[identifier_of(ref, "image_id", "")].append((number, ref))

    def images() -> Iterator[RawImage]:
        for image_id, numbered in refs_of_image.items():
            rows = tuple(_read(ref, number, index, read_row) for number, ref in numbered)
            if image_id or rows[0].problem is None:
                yield index.image(image_id, path.name, rows)
            else:
                yield unnamed_image(image_id, path.name, rows)

    apart = path.name not in SPLITS_SHARE_IMAGES
    return RawDataset(len(refs_of_image), images(), others, splits_share_no_image=apart)


def _read(
    ref: Any, number: int, index: CocoIndex, read_row: Callable[[Any, str, CocoIndex], RawRow]
) -> RawRow:
    row_id = identifier_of(ref, "ref_id", f"#{number}")
    try:
        return read_row(ref, row_id, index)
    except ProblemError as error:
        return RawRow(row_id=row_id, problem=error.problem)


def _refer_row(ref: Any, row_id: str, index: CocoIndex) -> RawRow:
    fields = parse_fields(ReferRow, ref)
    return RawRow(
        row_id=row_id,
        masks=(index.mask(fields.ann_id, fields.image_id),),
        expressions=tuple(sentence.sent for sentence in fields.sentences),
        split=fields.split,
    )


def _gref_row(ref: Any, row_id: str, index: CocoIndex) -> RawRow:
    fields = parse_fields(GrefRow, ref)
    annotation_ids = [] if fields.ann_id == NO_TARGET_IDS else fields.ann_id
    return RawRow(
        row_id=row_id,
        masks=tuple(index.mask(annotation_id, fields.image_id) for annotation_id in annotation_ids),
        expressions=tuple(sentence.sent for sentence in fields.sentences),
        no_target=fields.no_target,
        split=fields.split,
    )
