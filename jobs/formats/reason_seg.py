"""ReasonSeg: `{split}/NAME.json` beside `{split}/NAME.jpg`, questions that take reasoning.

Outlines are painted over one another, larger ones first: `target` is meant, what `ignore` covers counts
neither way, and `flag` says nothing. `explanatory/train.json` asks for some of the images in other words.
"""

from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from PIL import Image
from pydantic import Field, FiniteFloat

from alto_models import masks as mask_arithmetic
from alto_models.masks import MaskError, Rle
from data_contracts.errors import InputError
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
    parse_json,
    printable,
    read_bytes,
)
from jobs.formats.selection import WHOLE, Selection

EXPLANATORY = "explanatory"
PIXEL_LIMIT = 100_000_000
FLAG = "flag"
IGNORE = "ignore"

Point = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]


class Shape(Fields):
    label: Text
    shape_type: Literal["polygon"] = "polygon"
    points: list[Point]


class Annotations(Fields):
    text: list[Text]
    is_sentence: bool
    shapes: list[dict[str, Any]]


class Explanation(Fields):
    query: Text
    image: Text


class Painted(NamedTuple):
    """targets: what is left to see of each target outline."""

    targets: tuple[Rle, ...]
    ignore: Rle | None


def open_reason_seg(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """All pairs in the folders below, each of which is a split. Raises InputError where
    `explanatory/train.json` is there and cannot be read."""
    selection.refuse(folder, "reason_seg", "annotations")
    pairs = {path.with_suffix("") for end in ("jpg", "json") for path in folder.glob(f"*/*.{end}")}
    stems = sorted(stem for stem in pairs if stem.parent.name != EXPLANATORY)
    explanations = _Explanations(folder)
    rows: list[tuple[str | None, Path | str]] = [(stem.parent.name, stem) for stem in stems]
    rows += [("train", name) for name in explanations.stray]
    chosen, others = selection.rows_of_splits(rows, folder)

    def images() -> Iterator[RawImage]:
        for row in chosen:
            yield _read_pair(row, explanations) if isinstance(row, Path) else explanations.stray[row]

    return RawDataset(len(chosen), images(), others)


class _Explanations:
    """Other questions for training images. stray: entries of no image, by their names."""

    def __init__(self, folder: Path) -> None:
        self.stray: dict[str, RawImage] = {}
        self._queries: dict[str, list[str]] = defaultdict(list)
        path = folder / EXPLANATORY / "train.json"
        if not path.exists():
            return
        entries = load_json_file(path)
        if not isinstance(entries, list):
            raise InputError(f"{path}: a list of questions expected, found {type(entries).__name__}")
        for number, entry in enumerate(entries):
            try:
                fields = parse_fields(Explanation, entry)
                stem = printable(Path(fields.image).stem)
                if not (folder / "train" / f"{stem}.json").is_file():
                    raise ProblemError("annotation_exists", f"no train/{stem}.json")
                self._queries[stem].append(fields.query)
            except (ProblemError, OSError, ValueError) as error:
                problem = error if isinstance(error, ProblemError) else ProblemError("path_safe", error)
                name = f"{EXPLANATORY}-{number}"
                self.stray[name] = RawImage(
                    image_id=name,
                    source_file=f"{EXPLANATORY}/train.json",
                    rows=(RawRow(row_id=name, split="train", problem=problem.problem),),
                    problem=problem.problem,
                )

    def of(self, stem: Path) -> list[str]:
        return self._queries.get(stem.name, []) if stem.parent.name == "train" else []


def _read_pair(stem: Path, explanations: _Explanations) -> RawImage:
    split = printable(stem.parent.name)
    name = f"{split}/{printable(stem.name)}"
    try:
        data = read_bytes(stem.with_name(f"{stem.name}.jpg"), "image_exists")
        size = _stored_size(data)
    except ProblemError as error:
        row = RawRow(row_id=name, split=split)
        return RawImage(image_id=name, source_file=name, rows=(row,), problem=error.problem)
    row = _read_row(stem, name, split, size, explanations.of(stem))
    return RawImage(image_id=name, source_file=name, rows=(row,), data=data)


def _stored_size(data: bytes) -> tuple[int, int]:
    """(height, width) from the image's header. Raises ProblemError."""
    try:
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as image:
            width, height = image.size
    except Exception as error:  # decoders raise nearly anything for damaged bytes
        raise ProblemError("image_decodes", f"{len(data)} bytes: {error}") from None
    if width * height > PIXEL_LIMIT:
        raise ProblemError("image_pixel_limit", f"{width} x {height} pixels")
    return height, width


def _read_row(stem: Path, name: str, split: str, size: tuple[int, int], queries: list[str]) -> RawRow:
    try:
        content = _parse_text(read_bytes(stem.with_name(f"{stem.name}.json"), "annotations_readable"))
        fields = parse_fields(Annotations, content)
        painted = _paint([parse_fields(Shape, shape) for shape in fields.shapes], size)
    except MaskError as error:
        return RawRow(row_id=name, split=split, problem=ProblemError("mask_readable", error).problem)
    except ProblemError as error:
        return RawRow(row_id=name, split=split, problem=error.problem)
    return RawRow(
        row_id=name,
        masks=tuple(
            RawMask(mask_id=f"{name}#{number}", segmentation={"size": list(size), "counts": rle.counts})
            for number, rle in enumerate(painted.targets)
        ),
        expressions=tuple(dict.fromkeys([*fields.text, *queries])),
        split=split,
        ignore=painted.ignore,
    )


def _parse_text(data: bytes) -> Any:
    """JSON in UTF-8, or as some of the files are in Windows' cp1252. Raises ProblemError."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        try:
            data = data.decode("cp1252").encode()
        except UnicodeDecodeError:
            raise ProblemError("annotations_readable", "text is neither UTF-8 nor cp1252") from None
    return parse_json(data, "annotations_readable")


def _paint(shapes: list[Shape], size: tuple[int, int]) -> Painted:
    """What is to be seen of the outlines painted over one another. Raises MaskError.

    Larger ones come first, of equal ones the later; what is left without a pixel is left out.
    """
    outlines = [
        (shape.label.lower(), mask_arithmetic.rasterise_polygons([sum(shape.points, [])], *size))
        for shape in shapes
        if shape.label.lower() != FLAG
    ]
    order = sorted(range(len(outlines)), key=lambda place: (_area(outlines[place][1]), place), reverse=True)
    targets: list[Rle] = []
    ignores: list[Rle] = []
    for place in order:
        label, outline = outlines[place]
        on_top, below = (ignores, targets) if IGNORE in label else (targets, ignores)
        below[:] = [mask_arithmetic.difference(rle, outline) for rle in below]
        on_top.append(outline)
    seen = tuple(rle for rle in targets if _area(rle))
    ignore = mask_arithmetic.union(ignores) if ignores else None
    return Painted(seen, ignore if ignore and _area(ignore) else None)


def _area(rle: Rle) -> int:
    return mask_arithmetic.area(mask_arithmetic.parse_counts(rle.counts))
