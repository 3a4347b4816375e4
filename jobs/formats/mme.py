"""MME: yes/no questions in 14 subtasks, two about each image, of which one is to be answered with no.

A subtask is a folder with images and a .txt for each: side by side, or in `images/` and `questions_answers_YN/`.
A .txt has two lines `question<TAB>Yes` or `question<TAB>No`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_contracts.errors import InputError
from data_contracts.vqa import MME_COGNITION, MME_PERCEPTION
from jobs.formats.raw import (
    VALUE_CHARACTERS,
    Problem,
    ProblemError,
    RawAnswers,
    RawDataset,
    RawImage,
    RawRow,
    printable,
    read_bytes,
)
from jobs.formats.selection import WHOLE, Selection
from jobs.formats.vqa_images import IMAGE_SUFFIXES

SUBTASKS = (*MME_PERCEPTION, *MME_COGNITION)
SPLIT = "test"


class Pair(NamedTuple):
    """An image of a subtask and its questions; one of the two may be missing."""

    subtask: str
    stem: str
    image: Path | None
    text: Path | None


def open_mme(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """All subtasks below the folder. Raises InputError where there is none."""
    selection.refuse(folder, "mme", "splits", "annotations")
    pairs = [pair for subtask in SUBTASKS for pair in _pairs(folder, subtask)]
    if not pairs:
        raise InputError(f"{folder}: no folder of a subtask ({', '.join(SUBTASKS)}) with images and .txt")
    return RawDataset(len(pairs), map(_read_image, pairs))


def _pairs(folder: Path, subtask: str) -> Iterator[Pair]:
    for top in sorted(path for path in folder.rglob(subtask) if path.is_dir()):
        files = [
            path for part in (".", "images", "questions_answers_YN") for path in (top / part).glob("*.*")
        ]
        images = {path.stem: path for path in sorted(files) if path.suffix.lower() in IMAGE_SUFFIXES}
        texts = {path.stem: path for path in sorted(files) if path.suffix.lower() == ".txt"}
        for stem in sorted({*images, *texts}):
            yield Pair(subtask, stem, images.get(stem), texts.get(stem))


def _read_image(pair: Pair) -> RawImage:
    image_id = printable(f"{pair.subtask}/{pair.stem}")
    found = RawImage(image_id=image_id, source_file=image_id, rows=tuple(_read_rows(pair, image_id)))
    return found.filled(partial(_read_file, pair, image_id))


def _read_file(pair: Pair, image_id: str) -> bytes:
    if pair.image is None:
        raise ProblemError("image_exists", f"no image beside {image_id}.txt")
    return read_bytes(pair.image, "image_exists")


def _read_rows(pair: Pair, image_id: str) -> Iterator[RawRow]:
    try:
        lines = _lines(pair, image_id)
    except ProblemError as error:
        yield RawRow(row_id=image_id, split=SPLIT, problem=error.problem)
        return
    for number, line in lines:
        row_id = f"{image_id}-{number}"
        question, tab, answer = line.rpartition("\t")
        if not tab:
            problem = Problem(rule="line_readable", value=f"no tab: {printable(answer)[:VALUE_CHARACTERS]}")
            yield RawRow(row_id=row_id, split=SPLIT, problem=problem)
            continue
        answers = RawAnswers(texts=(answer.strip().lower(),), category=pair.subtask, pair=image_id)
        yield RawRow(row_id=row_id, split=SPLIT, expressions=(question,), answers=answers)


def _lines(pair: Pair, image_id: str) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1. Raises ProblemError where there is none."""
    if pair.text is None:
        raise ProblemError("annotations_readable", f"no {image_id}.txt")
    try:
        text = read_bytes(pair.text, "annotations_readable").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProblemError("annotations_readable", f"{image_id}.txt is not UTF-8 ({error.reason})") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise ProblemError("annotations_readable", f"{image_id}.txt is empty")
    return lines
