"""VQAv2: open questions, each with the answers of ten people.

`v2_OpenEnded_mscoco_<subset>_questions.json` and `v2_mscoco_<subset>_annotations.json`; the subset (such as `val2014`)
and the number of an image give the name of its file.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    load_json_file,
    parse_fields,
    unnamed_image,
)
from jobs.formats.selection import WHOLE, Selection
from jobs.formats.vqa_images import ImageFiles

_QUESTIONS_NAME = re.compile(r"v2_OpenEnded_mscoco_(([a-z-]+)\d{4})_questions\.json")


class Question(Fields):
    question_id: Identifier
    image_id: Identifier
    question: Text


class Annotation(Fields):
    """answers: texts, for `_texts_for_answers` has taken them out of their objects."""

    question_id: Identifier
    image_id: Identifier
    question_type: Text | None = None
    answer_type: Text | None = None
    answers: list[Text]


def open_vqav2(folder: Path, selection: Selection = WHOLE) -> RawDataset:
    """The questions file of the folder, or the chosen one, with its annotations. Raises InputError without them."""
    selection.refuse(folder, "vqav2", "splits")
    candidates = sorted(path for path in folder.rglob("*.json") if _QUESTIONS_NAME.fullmatch(path.name))
    path = selection.one_of(candidates, folder, "files v2_OpenEnded_mscoco_*_questions.json")
    found = _QUESTIONS_NAME.fullmatch(path.name)
    assert found is not None
    subset, split = found.groups()
    annotations_path = path.with_name(f"v2_mscoco_{subset}_annotations.json")
    if not annotations_path.is_file():
        raise InputError(
            f"{path}: no {annotations_path.name} beside it; without answers, as in the test subsets, nothing is scored"
        )
    questions, annotations = _list_in(path, "questions"), _list_in(annotations_path, "annotations")
    rows_of_image = _join(questions, annotations, split)
    return RawDataset(len(rows_of_image), _read_images(folder, subset, rows_of_image))


def _list_in(path: Path, key: str) -> list[Any]:
    content = load_json_file(path, _texts_for_answers)
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise InputError(f"{path}: no list {key!r}; it is not VQAv2's")
    rows: list[Any] = content[key]
    return rows


def _texts_for_answers(row: dict[str, Any]) -> Any:
    # There are four million answers in two hundred thousand texts: as objects they would fill the memory.
    if "answer_id" not in row:
        return row
    answer = row.get("answer")
    return sys.intern(answer) if type(answer) is str else answer


def _join(questions: list[Any], annotations: list[Any], split: str) -> dict[str, list[RawRow]]:
    """Rows by image id: every question, and every annotation that is of none."""
    annotation_of: dict[str, Any] = {}
    twice: set[str] = set()
    for number, row in enumerate(annotations):
        question_id = identifier_of(row, "question_id", f"annotation #{number}")
        twice |= {question_id} if question_id in annotation_of else set()
        annotation_of[question_id] = row
    rows_of_image: dict[str, list[RawRow]] = defaultdict(list)
    asked = set()
    for number, question in enumerate(questions):
        row_id = identifier_of(question, "question_id", f"question #{number}")
        asked.add(row_id)
        try:
            if row_id in twice:
                raise ProblemError("annotation_exists", f"two annotations of question {row_id}")
            row = _row(question, annotation_of.get(row_id), split)
        except ProblemError as error:
            row = RawRow(row_id=row_id, split=split, problem=error.problem)
        rows_of_image[identifier_of(question, "image_id", "")].append(row)
    for question_id, annotation in annotation_of.items():
        if question_id not in asked:
            problem = Problem(rule="question_exists", value=f"annotation of question {question_id}")
            dangling = RawRow(row_id=question_id, split=split, problem=problem)
            rows_of_image[identifier_of(annotation, "image_id", "")].append(dangling)
    return rows_of_image


def _row(question: Any, annotation: Any, split: str) -> RawRow:
    fields = parse_fields(Question, question)
    if annotation is None:
        raise ProblemError("annotation_exists", f"question {fields.question_id}")
    answered = parse_fields(Annotation, annotation)
    if answered.image_id != fields.image_id:
        raise ProblemError(
            "annotation_exists",
            f"question {fields.question_id}: its annotation is of image {answered.image_id}",
        )
    answers = RawAnswers(
        texts=tuple(answered.answers), category=answered.answer_type, question_type=answered.question_type
    )
    return RawRow(row_id=fields.question_id, split=split, expressions=(fields.question,), answers=answers)


def _read_images(folder: Path, subset: str, rows_of_image: dict[str, list[RawRow]]) -> Iterator[RawImage]:
    files = ImageFiles(folder)
    for image_id, rows in rows_of_image.items():
        if not image_id:
            yield from (unnamed_image(row.row_id, subset, (row,)) for row in rows)
            continue
        yield files.image(files.first_of(_file_names(subset, image_id)), tuple(rows))


def _file_names(subset: str, image_id: str) -> list[str]:
    # Questions of test-dev2015 are about images of test2015; COCO's later releases leave the front out.
    return [f"COCO_{subset.replace('-dev', '')}_{image_id:0>12}.jpg", f"{image_id:0>12}.jpg"]


def image_names_of_questions(path: Path) -> Iterator[str]:
    """File names that the images of a questions file may have."""
    found = _QUESTIONS_NAME.fullmatch(path.name)
    if found is None:
        return
    for image_id in {identifier_of(row, "image_id", "") for row in _list_in(path, "questions")}:
        yield from _file_names(found[1], image_id)
