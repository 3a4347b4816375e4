"""A benchmark of questions is asked whole, scored as its publisher does, and goes on where it was killed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from alto_models.altollm.answering import Answer
from alto_models.data.shards import Picture
from alto_models.data.vqa import VqaImages, holds_questions
from data_contracts.errors import InputError
from jobs.benchmarking.results import read_metrics, read_table
from jobs.benchmarking.vqa import ALWAYS_YES, ask_and_score
from jobs.benchmarking.vqa_results import (
    VQA_METRICS_FILE,
    VQA_SAMPLES_FILE,
    VQA_SAMPLES_SCHEMA,
    VqaMetrics,
    VqaSystem,
)
from tests.jobs.benchmark_example import config, known_systems, stage_context, write_prepared
from tests.jobs.raw_data import HEIGHT, WIDTH
from tests.jobs.test_benchmark_report import make_inputs, make_report
from tests.jobs.vqa_data import POPE, question, write_questions


@dataclass
class Parrot:
    """Answers by a rule on the prompt. asked: all prompts, in order. left: answers before it dies."""

    rule: Callable[[str], str]
    asked: list[str] = field(default_factory=list)
    left: int = 10**6

    def answer(self, images: Sequence[Picture], prompts: Sequence[str], *, max_length: int) -> list[Answer]:
        assert len(images) == len(prompts)
        assert all(image.shape == (HEIGHT, WIDTH, 3) for image in images)
        self.left -= len(prompts)
        if self.left < 0:
            raise KeyboardInterrupt
        self.asked += prompts
        return [Answer(text=self.rule(p), masks=(), no_target=False, malformed=True) for p in prompts]


def run(folder: Path, images: VqaImages, model: Parrot, name: str = "run", **changes: Any) -> VqaMetrics:
    context = stage_context(folder / name, "benchmark", "set")
    report = ask_and_score(images, {"model": model}, 4, config(**changes), context)
    metrics = read_metrics(context.output / VQA_METRICS_FILE, VqaMetrics)
    table = read_table(context.output / VQA_SAMPLES_FILE, VQA_SAMPLES_SCHEMA)
    assert len(table) == 2 * metrics.questions
    assert report.figures["questions"] == metrics.questions
    return metrics


def system(metrics: VqaMetrics, name: str) -> VqaSystem:
    return next(one for one in metrics.systems if one.system == name)


def test_pope(tmp_path: Path) -> None:
    model = Parrot(lambda prompt: "No." if prompt.startswith("What is 1?") else " Yes, it is.\n")
    metrics = run(tmp_path, write_questions(tmp_path / "set", POPE), model)
    assert (metrics.scoring, metrics.images, metrics.questions) == ("pope", 3, 12)
    assert model.asked[0] == "What is 0?\nAnswer the question using a single word or phrase."
    figures = system(metrics, "model").figures
    # One of the three noes of `popular` was found.
    assert figures["popular.accuracy"] == pytest.approx(4 / 6)
    assert figures["random.accuracy"] == pytest.approx(3 / 6)
    assert figures["accuracy"] == pytest.approx(7 / 12)
    assert figures["popular.f1"] == pytest.approx(2 * 3 / (2 * 3 + 2))
    yes = system(metrics, ALWAYS_YES)
    assert (yes.figures["accuracy"], yes.figures["yes_ratio"]) == (0.5, 1)
    assert yes.score.low == yes.score.value == yes.score.high == 0.5  # half of every image


def test_vqav2(tmp_path: Path) -> None:
    images = write_questions(
        tmp_path / "set",
        [
            [question(0, "vqav2", ["2"] * 9 + ["two"], category="number")],
            [question(1, "vqav2", ["yes"] * 10, category="yes/no")],
        ],
    )
    metrics = run(tmp_path, images, Parrot(lambda prompt: "The two"))
    assert system(metrics, "model").figures == {"overall": 50, "number": 100, "yes/no": 0}
    assert system(metrics, ALWAYS_YES).figures == {"overall": 50, "number": 0, "yes/no": 100}


def test_mme(tmp_path: Path) -> None:
    images = write_questions(
        tmp_path / "set",
        [
            [
                question(2 * n + i, "mme", [label], category=task, pair=f"{task}/{n}")
                for i, label in enumerate(("yes", "no"))
            ]
            for n, task in enumerate(("count", "code_reasoning"))
        ],
    )
    model = Parrot(lambda prompt: "no" if prompt.startswith("What is 1?") else "yes")
    metrics = run(tmp_path, images, model)
    assert model.asked[0] == "What is 0? Answer the question using a single word or phrase."
    expected = {"perception": 200, "cognition": 50, "code_reasoning": 50, "count": 200}
    assert system(metrics, "model").figures == expected
    assert system(metrics, ALWAYS_YES).figures["perception"] == 50


def test_a_killed_run_redoes_one_shard_and_ends_the_same(tmp_path: Path) -> None:
    images = write_questions(tmp_path / "set", POPE)
    whole = run(tmp_path, images, Parrot(lambda prompt: "yes"), images_per_shard=1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, images, Parrot(lambda prompt: "yes", left=6), "killed", images_per_shard=1)
    (tmp_path / "killed" / "output").rename(tmp_path / "killed" / "left")
    model = Parrot(lambda prompt: "yes")
    assert run(tmp_path, images, model, "killed", images_per_shard=1) == whole
    assert len(model.asked) == 8


def test_a_limit_shows(tmp_path: Path) -> None:
    metrics = run(tmp_path, write_questions(tmp_path / "set", POPE), Parrot(lambda prompt: "yes"), limit=2)
    assert (metrics.limit, metrics.images, metrics.images_available, metrics.questions) == (2, 2, 3, 8)


def test_questions_of_two_benchmarks_are_refused(tmp_path: Path) -> None:
    mixed = [[question(0, "pope", ["yes"], category="random")], [question(1, "vqav2", ["yes"] * 10)]]
    with pytest.raises(InputError, match="questions of pope, vqav2: one benchmark expected"):
        run(tmp_path, write_questions(tmp_path / "set", mixed), Parrot(lambda prompt: "yes"))


def test_question_sets_are_told_from_referring_ones(tmp_path: Path) -> None:
    write_questions(tmp_path / "set", POPE)
    write_prepared(tmp_path / "scenes", 1)
    assert holds_questions(tmp_path / "set")
    assert not holds_questions(tmp_path / "scenes")
    assert not holds_questions(tmp_path)


def test_the_report_shows_questions_beside_masks(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "inputs", known_systems())
    run(tmp_path, write_questions(tmp_path / "set", POPE), Parrot(lambda prompt: "no"), limit=2)
    (tmp_path / "run" / "output").rename(inputs["benchmark"] / "set")
    _, output = make_report(tmp_path / "report", inputs)
    page = (output / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="questions">') : page.index('<section id="peers">')]
    assert "LIMITED to the first 2 of 3 images" in section
    assert "Always yes" in section
    assert "<td>random.accuracy</td>" in section
    summary = json.loads((output / "summary.json").read_text())
    assert summary["set.model.accuracy"] == summary["set.model.score"] == 0.5
    assert summary["set.always_yes.popular.yes_ratio"] == 1
