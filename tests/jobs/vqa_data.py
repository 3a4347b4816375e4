"""Small question sets in their publishers' files, for tests to damage."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alto_models.data.vqa import VqaImages
from data_contracts.schemas import VQA_SCHEMA
from tests.jobs.raw_data import HEIGHT, WIDTH, jpeg

COCO_IMAGES = (310196, 9)
ANSWERS = ["two", "2", "two", "2", "three", "two", "2", "2", "two", "two"]


def coco_name(number: int) -> str:
    return f"COCO_val2014_{number:012d}.jpg"


def write_coco_images(folder: Path) -> None:
    (folder / "val2014").mkdir(parents=True, exist_ok=True)
    for number in COCO_IMAGES:
        (folder / "val2014" / coco_name(number)).write_bytes(jpeg(width=20 + number % 10))


def pope_rows() -> list[dict[str, Any]]:
    """Six questions about each image, as in each of the three files."""
    return [
        {
            "question_id": number + 1,
            "image": coco_name(COCO_IMAGES[number // 6]),
            "text": f"Is there a thing{number} in the image?",
            "label": "yes" if number % 2 == 0 else "no",
        }
        for number in range(12)
    ]


def write_pope(folder: Path, category: str, rows: list[Any]) -> Path:
    path = folder / f"coco_pope_{category}.json"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def vqav2_rows() -> tuple[list[Any], list[Any]]:
    """Questions and annotations."""
    questions = [
        {"question_id": image * 1000 + n, "image_id": image, "question": f"How many cups {n}?"}
        for image in COCO_IMAGES
        for n in range(3)
    ]
    annotations = [
        {
            "question_type": "how many",
            "multiple_choice_answer": "two",
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": n}
                for n, answer in enumerate(ANSWERS, start=1)
            ],
            "image_id": question["image_id"],
            "answer_type": "number",
            "question_id": question["question_id"],
        }
        for question in questions
    ]
    return questions, annotations


def write_vqav2(folder: Path, questions: list[Any], annotations: list[Any], subset: str = "val2014") -> None:
    head = {"info": {"version": "2.0"}, "data_type": "mscoco", "data_subtype": subset, "license": {}}
    name = f"mscoco_{subset}"
    content = head | {"task_type": "Open-Ended", "questions": questions}
    (folder / f"v2_OpenEnded_{name}_questions.json").write_text(json.dumps(content))
    (folder / f"v2_{name}_annotations.json").write_text(json.dumps(head | {"annotations": annotations}))


def mme_text(first: str = "Is it one? Please answer yes or no.\tYes", second: str = "Is it two?\tNo") -> str:
    return f"{first}\n{second}\n"


def write_mme(folder: Path, subtask: str, texts: dict[str, str | bytes], apart: bool) -> None:
    """Image and .txt of each name; apart: in `images/` and `questions_answers_YN/`."""
    for stem, text in texts.items():
        for part, name, content in (
            ("images", f"{stem}.jpg", jpeg()),
            ("questions_answers_YN", f"{stem}.txt", text.encode() if isinstance(text, str) else text),
        ):
            place = folder / subtask / part if apart else folder / subtask
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)


def question(number: int, scoring: str, answers: list[str], **fields: Any) -> dict[str, Any]:
    """A prepared question."""
    empty = {"category": None, "question_type": None, "pair": None}
    identity = {"question_id": f"q{number}", "scoring": scoring, "question": f"What is {number}?"}
    return identity | empty | {"answers": answers} | fields


def write_questions(folder: Path, questions_of_image: list[list[dict[str, Any]]]) -> VqaImages:
    """A prepared partition with an image for each list of questions."""
    rows = [
        {
            "image_id": str(number),
            "image_numbering": None,
            "source": "set",
            "split": "test",
            "width": WIDTH,
            "height": HEIGHT,
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "image_sha256": "0" * 64,
            "image": jpeg(),
            "questions": questions,
        }
        for number, questions in enumerate(questions_of_image)
    ]
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=VQA_SCHEMA), folder / "shard-00000.parquet")
    return VqaImages(folder)


# Three images, each with a yes and a no of two files.
POPE = [
    [
        question(4 * n + 2 * k + i, "pope", [label], category=c)
        for k, c in enumerate(("popular", "random"))
        for i, label in enumerate(("yes", "no"))
    ]
    for n in range(3)
]
