"""What every format reader yields: images with rows of masks, wrong ones carrying their problem.

A row is what is counted, accepted or quarantined as a whole: a mask (SA-1B), a record (referring data:
expressions with the masks of their targets) or a question with its answers. Readers check form (files, fields,
types, references); whether the content is right is for the contract to say.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from alto_models.masks import Rle
from data_contracts.errors import InputError

MAX_FILE_BYTES = 256 * 2**20
VALUE_CHARACTERS = 200
# Characters that take no place: joiners, byte order marks, end of text in C.
WIDTHLESS = "\u200b\u200c\u200d\u2060\ufeff\0"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why something could not be read: a rule of the data set's contract and the offending value."""

    rule: str
    value: str


@dataclass(frozen=True, kw_only=True)
class RawMask:
    """segmentation: polygons, uncompressed or compressed RLE as in COCO; stated_*: the publisher's claims."""

    mask_id: str
    segmentation: object = None
    category: str | None = None
    stated_area: float | None = None
    stated_box: tuple[float, float, float, float] | None = None
    predicted_iou: float | None = None
    stability_score: float | None = None
    problem: Problem | None = None


@dataclass(frozen=True, kw_only=True)
class RawAnswers:
    """What a question is answered with. category: subset, subtask or sort of answer. pair: what is scored together."""

    texts: tuple[str, ...]
    category: str | None = None
    question_type: str | None = None
    pair: str | None = None


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """split: as the publisher names it, None where the publisher has none. ignore: pixels that count neither
    as target nor as background, of the image's size and apart from the masks; None for none.
    answers: of a question, which is then the one expression."""

    row_id: str
    masks: tuple[RawMask, ...] = ()
    expressions: tuple[str, ...] = ()
    no_target: bool = False
    split: str | None = None
    ignore: Rle | None = None
    answers: RawAnswers | None = None
    problem: Problem | None = None


@dataclass(frozen=True, kw_only=True)
class RawImage:
    """data: bytes of the image file; stated_size: (width, height).

    image_numbering: whose ids `image_id` is one of ("coco"), None where they are the data set's own.
    """

    image_id: str
    image_numbering: str | None = None
    source_file: str
    rows: tuple[RawRow, ...]
    data: bytes = b""
    stated_size: tuple[int, int] | None = None
    problem: Problem | None = None

    def filled(self, read: Callable[[], bytes]) -> "RawImage":
        """With the data that `read` gives or, where it raises ProblemError, with that problem."""
        try:
            return replace(self, data=read())
        except ProblemError as error:
            return replace(self, problem=error.problem)


def unnamed_image(image_id: str, source_file: str, rows: tuple[RawRow, ...]) -> RawImage:
    """Rows, each with its problem, that do not even say of which image they are."""
    return RawImage(image_id=image_id, source_file=source_file, rows=rows, problem=rows[0].problem)


@dataclass(frozen=True)
class RawDataset:
    """images: read lazily, in a fixed order; count: how many, for the progress bar.
    rows_of_other_splits: rows that are there and were not asked for.
    splits_share_no_image: whether the publisher promises it.
    archives: the same images archive by archive, where each can be read without those before it."""

    count: int
    images: Iterator[RawImage]
    rows_of_other_splits: int = 0
    archives: tuple[Iterator[RawImage], ...] = ()
    splits_share_no_image: bool = False

    @property
    def parts(self) -> tuple[Iterator[RawImage], ...]:
        """The images in the pieces a killed run may go on with."""
        return self.archives or (self.images,)


class Fields(BaseModel):
    """Base of the typed view of one JSON object; fields not named are ignored, types not converted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


def _identifier(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _unicode(text: str) -> str:
    text.encode("utf-8")  # a lone surrogate is a ValueError, which becomes the field's error
    return text


Text = Annotated[str, AfterValidator(_unicode)]
Identifier = Annotated[Text, BeforeValidator(_identifier)]
Side = Annotated[int, Field(gt=0, lt=2**31)]  # pixels


def as_box(values: list[float]) -> tuple[float, float, float, float]:
    """Raises ProblemError unless there are four numbers."""
    if len(values) != 4:
        raise ProblemError("fields_complete", f"bbox: {len(values)} numbers")
    return values[0], values[1], values[2], values[3]


def printable(text: str) -> str:
    """Text that can be stored: JSON and file names can hold lone surrogates, which are no characters."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# Pillow's messages show the address of the object that held the bytes, another in every run.
MEMORY_ADDRESS = re.compile(r"<\S+ object at 0x[0-9a-f]+>")


class ProblemError(Exception):
    """Raised while one row is read; caught by its reader and turned into the row's Problem."""

    def __init__(self, rule: str, value: object) -> None:
        text = MEMORY_ADDRESS.sub("bytes", printable(str(value)))
        self.problem = Problem(rule=rule, value=text[:VALUE_CHARACTERS])
        super().__init__(f"{rule}: {value}")


AnyFields = TypeVar("AnyFields", bound=Fields)


def parse_fields(model: type[AnyFields], row: object) -> AnyFields:
    """The typed view of a row. Raises ProblemError "fields_complete" or "numbers_finite" naming the field."""
    try:
        return model.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        rule = "numbers_finite" if first["type"] == "finite_number" else "fields_complete"
        field = ".".join(map(str, first["loc"])) or "row"
        raise ProblemError(rule, f"{field}: {first['msg']}") from None


def identifier_of(row: object, key: str, fallback: str) -> str:
    """Best name for a row that may be broken."""
    value = row.get(key) if isinstance(row, Mapping) else None
    if isinstance(value, str):
        return printable(value)
    # Python refuses to write integers of thousands of digits, which a pickle can hold.
    return str(value) if type(value) is int and abs(value) < 2**63 else fallback


def text_of(row: object, key: str) -> str | None:
    """A text of a row that may be broken, None where it has none."""
    value = row.get(key) if isinstance(row, Mapping) else None
    return printable(value) if isinstance(value, str) else None


def named_or(row: object, key: str, fallback: str) -> str:
    """The text by which a row names something, else the fallback."""
    name = text_of(row, key)
    return fallback if name is None else name


def safe_path(folder: Path, relative: str) -> Path:
    """folder / relative. Raises ProblemError "path_safe" where that could leave the folder."""
    pure = PurePosixPath(relative.replace("\\", "/"))
    if not relative or pure.is_absolute() or ".." in pure.parts or "\0" in relative:
        raise ProblemError("path_safe", repr(relative))
    return folder / pure


def is_file(path: Path) -> bool:
    """Whether a path from outside is a file; one that no file system can hold is not."""
    try:
        return path.is_file()
    except OSError:  # a name too long
        return False


def read_bytes(path: Path, rule: str) -> bytes:
    """Contents of a regular file. Raises ProblemError(rule) where it is missing, unreadable or too large."""
    try:
        if not path.is_file():
            raise ProblemError(rule, f"no file {path.name}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ProblemError(rule, f"{path.name} has more than {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ProblemError(rule, f"{path.name}: {error.strerror or error}") from None


def visible(text: str) -> str:
    """Text without the blanks at its ends, those without width included."""
    return text.strip().strip(WIDTHLESS).strip()


def read_within(folder: Path, relative: str, rule: str) -> bytes:
    """As `read_bytes`, of a path that a data set names. Raises ProblemError."""
    return read_bytes(safe_path(folder, relative), rule)


def parse_json(data: bytes, rule: str) -> Any:
    """Raises ProblemError(rule) where the bytes are not JSON in UTF-8."""
    try:
        return _loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ProblemError(rule, error) from None


def load_json_file(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Contents of a data set's index file. Raises InputError: without it nothing can be read.

    object_hook: what each object becomes while it is read, as for `json.loads`.
    """
    try:
        return _loads(path.read_text(encoding="utf-8-sig"), object_hook)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; the data set is incomplete") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); acquire the data set again") from None


def _loads(text: str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """JSON; a whole number of thousands of digits, which Python refuses to read, is infinite, so that it costs
    its row and not its file."""
    try:
        return json.loads(text, object_hook=object_hook)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(
            text,
            object_hook=object_hook,
            parse_int=lambda digits: int(digits) if len(digits) < 1000 else float(digits),
        )
