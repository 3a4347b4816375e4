"""Small question sets in their publishers' files, for tests to damage."""

import json
from pathlib import Path
from typing import Any

from tests.jobs.raw_data import jpeg

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
