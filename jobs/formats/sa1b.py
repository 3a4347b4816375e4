"""SA-1B: pairs of `sa_N.jpg` and `sa_N.json`, in tar shards (never unpacked) or loose in folders."""

import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import FiniteFloat

from jobs.formats.raw import (
    Fields,
    Identifier,
    Problem,
    ProblemError,
    RawDataset,
    RawImage,
    RawMask,
    RawRow,
    Side,
    as_box,
    identifier_of,
    parse_fields,
    parse_json,
    printable,
    read_bytes,
)
from jobs.formats.selection import WHOLE, Selection
from jobs.formats.shard_archive import member_bytes, shard_members

Read = Callable[[], bytes]


class Sa1bImage(Fields):
    image_id: Identifier
    width: Side
    height: Side


class Sa1bAnnotation(Fields):
    id: Identifier
    segmentation: dict[str, Any]
    bbox: list[FiniteFloat]
    area: FiniteFloat
    predicted_iou: FiniteFloat
    stability_score: FiniteFloat


def open_sa1b(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """All pairs below a folder, loose ones first, then archive by archive in name order."""
    selection.refuse(folder, "sa1b", "annotations", "splits")
    archives, stems = sorted(folder.rglob("*.tar")), _loose_stems(folder)
    count = len(stems) + sum(map(_count_pairs, archives))
    parts = (_read_loose(folder, stems), *map(_read_archive, archives))
    return RawDataset(count, chain.from_iterable(parts), archives=parts)


def _read_loose(folder: Path, stems: list[Path]) -> Iterator[RawImage]:
    for stem in stems:
        yield _read_pair(
            printable(stem.relative_to(folder).as_posix()),
            partial(read_bytes, stem.with_suffix(".jpg"), "image_exists"),
            partial(read_bytes, stem.with_suffix(".json"), "annotations_readable"),
        )


def _loose_stems(folder: Path) -> list[Path]:
    files = [path for pattern in ("sa_*.jpg", "sa_*.json") for path in folder.rglob(pattern)]
    return sorted({path.with_suffix("") for path in files})


def _count_pairs(archive: Path) -> int:
    return len({_stem(item) for item in shard_members(archive) if isinstance(item, tarfile.TarInfo)})


def _stem(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).stem


def _read_archive(archive: Path) -> Iterator[RawImage]:
    pairs: dict[str, dict[str, tarfile.TarInfo]] = {}
    for item in shard_members(archive):
        if isinstance(item, ProblemError):
            yield _whole_file(archive.name, item.problem)
            continue
        pair, suffix = pairs.setdefault(_stem(item), {}), PurePosixPath(item.name).suffix
        if suffix in pair:
            yield _whole_file(
                archive.name, Problem(rule="archive_member", value=printable(f"{item.name}: twice"))
            )
        pair.setdefault(suffix, item)
    for stem, pair in pairs.items():
        yield _read_pair(
            printable(f"{archive.name}/{stem}"),
            partial(member_bytes, archive, pair.get(".jpg"), "image_exists"),
            partial(member_bytes, archive, pair.get(".json"), "annotations_readable"),
        )


def _whole_file(source_file: str, problem: Problem) -> RawImage:
    """Something that should have been a pair and stands for one row, since nobody knows how many it held."""
    return RawImage(
        image_id=problem.value.split(":")[0],
        source_file=source_file,
        rows=(RawRow(row_id=""),),
        problem=problem,
    )


def _read_pair(source: str, read_image: Read, read_annotations: Read) -> RawImage:
    stem = PurePosixPath(source).name.removeprefix("sa_")
    try:
        content = parse_json(read_annotations(), "annotations_readable")
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            raise ProblemError("fields_complete", "annotations: missing or not a list")
    except ProblemError as error:
        problem = error.problem
        return RawImage(image_id=stem, source_file=source, rows=(RawRow(row_id=""),), problem=problem)
    rows = tuple(_read_mask(row, i) for i, row in enumerate(content["annotations"]))
    try:
        image = parse_fields(Sa1bImage, content.get("image"))
        return RawImage(
            image_id=image.image_id,
            source_file=source,
            rows=rows,
            data=read_image(),
            stated_size=(image.width, image.height),
        )
    except ProblemError as error:
        image_id = identifier_of(content.get("image"), "image_id", stem)
        return RawImage(image_id=image_id, source_file=source, rows=rows, problem=error.problem)


def _read_mask(row: object, index: int) -> RawRow:
    row_id = identifier_of(row, "id", f"#{index}")
    try:
        fields = parse_fields(Sa1bAnnotation, row)
        mask = RawMask(
            mask_id=fields.id,
            segmentation=fields.segmentation,
            stated_area=fields.area,
            stated_box=as_box(fields.bbox),
            predicted_iou=fields.predicted_iou,
            stability_score=fields.stability_score,
        )
    except ProblemError as error:
        return RawRow(row_id=row_id, problem=error.problem)
    return RawRow(row_id=row_id, masks=(mask,))
