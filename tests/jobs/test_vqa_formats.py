"""Question sets in their official files: every question is accepted or quarantined, with the right reason."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alto_models.data.vqa import VqaImages, VqaQuestion
from data_contracts.errors import InputError
from jobs import acquire_benchmark, acquire_referring, prepare_benchmark
from jobs.formats.mme import open_mme
from jobs.formats.pope import open_pope
from jobs.formats.raw import RawDataset
from jobs.formats.vqav2 import open_vqav2
from jobs.runner.context import StageReport
from tests.jobs import test_acquire
from tests.jobs.raw_data import acquired, context
from tests.jobs.test_prepare import assert_accounted_for, quarantined
from tests.jobs.vqa_data import (
    ANSWERS,
    COCO_IMAGES,
    coco_name,
    mme_text,
    pope_rows,
    vqav2_rows,
    write_coco_images,
    write_mme,
    write_pope,
    write_vqav2,
)


def prepared(folder: Path, limit: float = 1.0, **chosen: Any) -> tuple[StageReport, Path]:
    given_ = context(folder, "prepare_benchmark", "set")
    parameters = {"benchmarks": {"set": chosen}, "contract": {"max_quarantined_share": limit}}
    report = prepare_benchmark.run(prepare_benchmark.Config.model_validate(parameters), given_)
    assert all(check.passed for check in report.checks if check.name == "expectations")
    return report, given_.output


def questions_of(output: Path) -> dict[str, VqaQuestion]:
    return {question.question_id: question for image in VqaImages(output) for question in image.questions}


def rules_of(output: Path) -> Counter[str]:
    """Rule -> quarantined rows."""
    return Counter(entry["rule"] for entry in quarantined(output) for _ in range(entry["rows"]))


# --- POPE


def test_pope_files_are_one_benchmark(tmp_path: Path) -> None:
    folder = acquired(tmp_path, "set", "pope")
    write_coco_images(folder)
    for category in ("random", "popular", "adversarial"):
        write_pope(folder, category, pope_rows())
    report, output = prepared(tmp_path, limit=0.0)
    assert_accounted_for(report, output, 36)
    assert {"images_test": 2, "rows_accepted": 36}.items() <= report.figures.items()
    images = list(VqaImages(output))
    assert {image.image_id for image in images} == {str(number) for number in COCO_IMAGES}
    assert all(len(image.questions) == 18 and image.width > 0 for image in images)
    question = questions_of(output)["popular-2"]
    assert (question.question, question.answers) == ("Is there a thing1 in the image?", ("no",))
    assert question.category == "popular"


def test_pope_one_file_and_other_dialects(tmp_path: Path) -> None:
    folder = acquired(tmp_path, "set", "pope")
    write_coco_images(folder)
    write_pope(folder, "random", pope_rows())
    rows = [row | {"label": " Yes\n", "question_id": str(row["question_id"])} for row in pope_rows()]
    (folder / "coco").mkdir()
    (folder / "coco" / "coco_pope_popular.json").write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    report, output = prepared(tmp_path, limit=0.0, annotations="coco_pope_popular.json")
    assert_accounted_for(report, output, 12)
    assert {question.answers for question in questions_of(output).values()} == {("yes",)}


BROKEN_POPE: dict[str, tuple[dict[str, Any] | str, str]] = {
    "another label": ({"label": "maybe"}, "answer_is_yes_or_no"),
    "no label": ({"label": None}, "fields_complete"),
    "label of a number": ({"label": 1}, "fields_complete"),
    "blank question": ({"text": "  "}, "question_not_empty"),
    "endless question": ({"text": "x" * 3000}, "question_not_too_long"),
    "image that is not there": ({"image": coco_name(1)}, "image_exists"),
    "image outside": ({"image": "../../dataset.json"}, "image_exists"),
    "image without a name": ({"image": ""}, "image_exists"),
    "no image": ({"image": None}, "fields_complete"),
    "id again": ({"question_id": 1}, "row_unique"),
    "no object": ("[1, 2]", "fields_complete"),
    "no json": ('{"question_id": 3', "line_readable"),
    "lone surrogate": ({"text": "\ud800"}, "fields_complete"),
}


def test_broken_lines_of_pope_are_quarantined_alone(tmp_path: Path) -> None:
    folder = acquired(tmp_path, "set", "pope")
    write_coco_images(folder)
    rows: list[Any] = pope_rows()
    for number, (change, _) in enumerate(BROKEN_POPE.values(), start=100):
        rows.append(change if isinstance(change, str) else rows[0] | {"question_id": number} | change)
    write_pope(folder, "random", rows)
    report, output = prepared(tmp_path)
    assert_accounted_for(report, output, 12 + len(BROKEN_POPE))
    assert report.figures["rows_accepted"] == 12
    assert rules_of(output) == Counter(rule for _, rule in BROKEN_POPE.values())


def test_a_damaged_image_takes_its_questions_with_it(tmp_path: Path) -> None:
    folder = acquired(tmp_path, "set", "pope")
    write_coco_images(folder)
    (folder / "val2014" / coco_name(9)).write_bytes(b"\xff\xd8\xff")
    write_pope(folder, "random", pope_rows())
    report, output = prepared(tmp_path)
    assert_accounted_for(report, output, 12)
    assert [(entry["rule"], entry["rows"]) for entry in quarantined(output)] == [("image_decodes", 6)]


# --- VQAv2


def test_vqav2_joins_questions_and_answers(tmp_path: Path) -> None:
    folder = acquired(tmp_path, "set", "vqav2")
    write_coco_images(folder)
    write_vqav2(folder, *vqav2_rows())
    report, output = prepared(tmp_path, limit=0.0)
    assert_accounted_for(report, output, 6)
    assert report.figures["images_val"] == 2
    question = questions_of(output)["310196002"]
    assert question.answers == tuple(ANSWERS)
    assert (question.category, question.question_type) == ("number", "how many")


def test_vqav2_images_of_other_releases_and_one_of_two_subsets(tmp_path: Path) -> None:
    folder = acquired(tmp_path, "set", "vqav2")
    write_coco_images(folder)
    for path in (folder / "val2014").iterdir():
        path.rename(path.with_name(path.name.removeprefix("COCO_val2014_")))
    write_vqav2(folder, *vqav2_rows())
    write_vqav2(folder, [], [], subset="train2014")
    with pytest.raises(InputError, match=r"2 files v2_OpenEnded.*`annotations`"):
        open_vqav2(folder)
    report, output = prepared(tmp_path, limit=0.0, annotations="v2_OpenEnded_mscoco_val2014_questions.json")
    assert_accounted_for(report, output, 6)


def test_vqav2_without_answers_is_refused(tmp_path: Path) -> None:
    write_vqav2(tmp_path, *vqav2_rows(), subset="test-dev2015")
    (tmp_path / "v2_mscoco_test-dev2015_annotations.json").unlink()
    with pytest.raises(InputError, match=r"no v2_mscoco_test-dev2015_annotations\.json beside it"):
        open_vqav2(tmp_path)


ONE_ANSWER = [{"answer": "two", "answer_confidence": "yes", "answer_id": 1}]
# Changes of a question and of its annotation (None: it is missing), and the rules that are broken.
BROKEN_VQAV2: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None, list[str]]] = {
    "nine answers": ({}, {"answers": ONE_ANSWER * 9}, ["ten_answers"]),
    "eleven answers": ({}, {"answers": ONE_ANSWER * 11}, ["ten_answers"]),
    "answer of a number": ({}, {"answers": [{"answer": 2, "answer_id": 1}] * 10}, ["fields_complete"]),
    "answers of text": ({}, {"answers": "two"}, ["fields_complete"]),
    "no annotation": ({}, None, ["annotation_exists"]),
    "no question": (None, {}, ["question_exists"]),
    "annotation of another image": ({}, {"image_id": 9}, ["annotation_exists"]),
    "blank question": ({"question": ""}, {}, ["question_not_empty"]),
    "question of a number": ({"question": 3}, {}, ["fields_complete"]),
    "no image id": ({"image_id": None}, {}, ["fields_complete"]),
    "image id that leads out": ({"image_id": "../1"}, {"image_id": "../1"}, ["image_exists"]),
    "no question id": ({"question_id": None}, {}, ["fields_complete", "question_exists"]),
}


def test_broken_questions_of_vqav2_are_quarantined_alone(tmp_path: Path) -> None:
    folder = acquired(tmp_path, "set", "vqav2")
    write_coco_images(folder)
    questions, annotations = vqav2_rows()
    for number, (question, annotation, _) in enumerate(BROKEN_VQAV2.values(), start=7000):
        if question is not None:
            questions.append(questions[0] | {"question_id": number} | question)
        if annotation is not None:
            annotations.append(annotations[0] | {"question_id": number} | annotation)
    questions += [questions[1], "no object"]
    annotations.append(annotations[2])
    write_vqav2(folder, questions, annotations)
    report, output = prepared(tmp_path)
    rules = [rule for _, _, broken in BROKEN_VQAV2.values() for rule in broken]
    rules += ["row_unique", "fields_complete", "annotation_exists"]
    # Every question, and the annotations that are of none.
    assert_accounted_for(report, output, len(questions) + rules.count("question_exists"))
    assert report.figures["rows_accepted"] == 5
    assert rules_of(output) == Counter(rules)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not JSON"), ("[]", "no list 'questions'"), ('{"questions": 3}', "no list")],
)
def test_vqav2_files_that_are_none_are_named(tmp_path: Path, content: str, message: str) -> None:
    write_vqav2(tmp_path, *vqav2_rows())
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(content)
    with pytest.raises(InputError, match=message):
        open_vqav2(tmp_path)


# --- MME


@pytest.mark.parametrize("wrapper", ["", "MME_Benchmark_release_version"])
def test_mme_in_both_layouts(tmp_path: Path, wrapper: str) -> None:
    folder = acquired(tmp_path, "set", "mme") / wrapper
    texts = {"000000006723": mme_text(), "000000008277": mme_text().replace("\n", "\r\n") + "\n"}
    write_mme(folder, "existence", texts, apart=False)
    write_mme(folder, "landmark", texts, apart=True)
    (folder / "eval_tool").mkdir()
    (folder / "eval_tool" / "existence.txt").write_text("000000006723.jpg\tIs it?\tYes\n")
    report, output = prepared(tmp_path, limit=0.0)
    assert_accounted_for(report, output, 8)
    images = {image.image_id: image for image in VqaImages(output)}
    assert set(images) == {f"{task}/{stem}" for task in ("existence", "landmark") for stem in texts}
    first, second = images["landmark/000000008277"].questions
    assert (first.question, first.answers) == ("Is it one? Please answer yes or no.", ("yes",))
    assert (second.answers, second.category) == (("no",), "landmark")
    assert first.pair == second.pair == "landmark/000000008277"


BROKEN_MME: dict[str, tuple[str | bytes, list[str]]] = {
    "one question": (mme_text().splitlines()[0], ["two_questions_an_image"]),
    "three questions": (mme_text() + "Is it three?\tNo\n", ["two_questions_an_image"]),
    "empty": ("", ["annotations_readable"]),
    "no tab": (mme_text(second="Is it two? No"), ["line_readable", "two_questions_an_image"]),
    "another answer": (mme_text(second="Is it two?\tPerhaps"), ["answer_is_yes_or_no"]),
    "blank question": (mme_text(second=" \tNo"), ["question_not_empty"]),
    "utf-16": (mme_text().encode("utf-16"), ["annotations_readable"]),
    "cp1252": (mme_text(second="Caf\xe9?\tNo").encode("cp1252"), ["annotations_readable"]),
}


def test_broken_pairs_of_mme_are_quarantined(tmp_path: Path) -> None:
    folder = acquired(tmp_path, "set", "mme")
    texts = {"right": mme_text()} | {name: text for name, (text, _) in BROKEN_MME.items()}
    write_mme(folder, "OCR", texts, apart=False)
    report, output = prepared(tmp_path)
    assert_accounted_for(report, output, int(report.figures["rows_read"]))
    rules_of_image: dict[str, set[str]] = defaultdict(set)
    for entry in quarantined(output):
        rules_of_image[entry["image_id"]].add(entry["rule"])
    assert rules_of_image == {f"OCR/{name}": set(rules) for name, (_, rules) in BROKEN_MME.items()}
    assert "OCR/right" in {image.image_id for image in VqaImages(output)}


def test_mme_halves_are_named(tmp_path: Path) -> None:
    folder = acquired(tmp_path, "set", "mme")
    write_mme(folder, "count", {"1": mme_text(), "2": mme_text(), "3": mme_text()}, apart=True)
    (folder / "count" / "images" / "2.jpg").unlink()
    (folder / "count" / "questions_answers_YN" / "3.txt").unlink()
    report, output = prepared(tmp_path)
    assert_accounted_for(report, output, 5)
    found = {entry["image_id"]: entry["rule"] for entry in quarantined(output)}
    assert found == {"count/2": "image_exists", "count/3": "annotations_readable"}


def test_a_folder_without_subtasks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.txt").write_text(mme_text())
    with pytest.raises(InputError, match="no folder of a subtask"):
        open_mme(tmp_path)


# --- any bytes


def read_all(dataset: RawDataset) -> int:
    return sum(len(image.rows) for image in dataset.images)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), place=st.sampled_from(["pope", "questions", "annotations", "mme"]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, place: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write_vqav2(folder, *vqav2_rows())
    write_mme(folder, "count", {"1": data}, apart=False)
    files = {
        "pope": folder / "coco_pope_random.json",
        "questions": folder / "v2_OpenEnded_mscoco_val2014_questions.json",
        "annotations": folder / "v2_mscoco_val2014_annotations.json",
        "mme": folder / "count" / "1.txt",
    }
    files[place].write_bytes(data)
    reader = {"pope": open_pope, "mme": open_mme}.get(place, open_vqav2)
    try:
        assert read_all(reader(folder)) >= 0
    except InputError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


# --- acquiring


def test_acquired_from_a_folder_and_prepared(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_mme(source, "color", {"1": mme_text()}, apart=False)
    settings_ = {"format": "mme", "source": "folder", "folder": str(source)}
    config = acquire_benchmark.Config.model_validate({"benchmarks": {"set": settings_}})
    output = tmp_path / "acquired" / "set"
    report = acquire_benchmark.run(config, test_acquire.context(output, "acquire_benchmark", "set"))
    assert report.figures == {"images": 1, "annotation_files": 1}
    report, prepared_output = prepared(tmp_path, limit=0.0)
    assert_accounted_for(report, prepared_output, 2)


@pytest.mark.parametrize("format_", ["pope", "vqav2"])
def test_images_of_a_folder_that_sets_share(tmp_path: Path, format_: str) -> None:
    write_coco_images(tmp_path / "coco")
    (tmp_path / "coco" / "val2014" / coco_name(77)).write_bytes(b"of no question")
    source = tmp_path / "source"
    source.mkdir()
    if format_ == "pope":
        write_pope(source, "random", pope_rows())
    else:
        write_vqav2(source, *vqav2_rows())
    settings_ = {
        "source": "folder",
        "folder": str(source),
        "image_folder": str(tmp_path / "coco" / "val2014"),
    }
    config = acquire_benchmark.Config.model_validate({"benchmarks": {"set": settings_ | {"format": format_}}})
    output = tmp_path / "acquired" / "set"
    report = acquire_benchmark.run(config, test_acquire.context(output, "acquire_benchmark", "set"))
    assert report.figures["images"] == 2
    assert {path.name for path in (output / "images").iterdir()} == {coco_name(n) for n in COCO_IMAGES}


@pytest.mark.parametrize("format_", ["pope", "vqav2", "mme"])
def test_question_sets_are_neither_drawn_nor_trained_on(format_: str) -> None:
    with pytest.raises(ValidationError, match="not drawn"):
        acquire_benchmark.Config.model_validate({"benchmarks": {"set": {"format": format_}}})
    with pytest.raises(ValidationError, match="for a benchmark only"):
        acquire_referring.Config.model_validate(
            {"datasets": {"set": {"format": format_, "source": "folder", "folder": "x"}}}
        )
