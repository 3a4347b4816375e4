"""Asks language models the questions of POPE, VQAv2 or MME, and scores the answers as their publishers do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import NamedTuple, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from alto_models.bootstrap import ImageBootstrap
from alto_models.data.shards import Picture, decode_image
from alto_models.data.vqa import VqaImage, VqaImages, VqaQuestion
from alto_models.vqa_metrics import (
    mme_answer,
    mme_score,
    pope_answer,
    pope_score,
    vqa_accuracy,
    vqa_answer,
)
from data_contracts.errors import InputError
from jobs.benchmarking.batches import whole_images
from jobs.benchmarking.language import LanguageModel
from jobs.benchmarking.results import Estimate, with_limit
from jobs.benchmarking.shards import in_shards
from jobs.benchmarking.vqa_results import (
    VQA_METRICS_FILE,
    VQA_SAMPLES_FILE,
    VQA_SAMPLES_SCHEMA,
    Scoring,
    VqaMetrics,
    VqaSystem,
)
from jobs.runner.context import StageContext, StageReport

# What models of this family are asked beside the question; MME's questions end in an instruction of their own.
SHORT_ANSWER = "Answer the question using a single word or phrase."
ALWAYS_YES = "always_yes"


class Settings(Protocol):
    """The parameters of the stage `benchmark` that are needed here."""

    @property
    def limit(self) -> int | None: ...
    @property
    def questions_per_batch(self) -> int: ...
    @property
    def images_per_shard(self) -> int: ...
    @property
    def bootstrap_resamples(self) -> int: ...
    @property
    def confidence_level(self) -> float: ...


class Asked(NamedTuple):
    image: VqaImage
    picture: Picture
    question: VqaQuestion

    @property
    def prompt(self) -> str:
        separator = " " if self.question.scoring == "mme" else "\n"
        return f"{self.question.question}{separator}{SHORT_ANSWER}"


def ask_and_score(
    images: VqaImages,
    models: Mapping[str, LanguageModel],
    max_length: int,
    settings: Settings,
    context: StageContext,
) -> StageReport:
    """Write `vqa_metrics.json` and `vqa_samples.parquet` for the models by name, and for the answer "yes".

    max_length: codes of a mask, at most; a mask in an answer is no part of its text.
    Raises InputError where the partition holds questions of several benchmarks.
    """
    count = min(len(images), settings.limit or len(images))
    scoring = _scoring(images, count)

    def answers(shard: range) -> pa.Table:
        return _answers(images, shard, models, max_length, settings)

    shards = in_shards("questions", count, settings.images_per_shard, answers, context)
    if shards is None:
        return StageReport(figures={})  # only the first process's counts
    samples = pa.concat_tables(shards).to_pandas()
    metrics = VqaMetrics(
        benchmark=str(context.partition),
        scoring=scoring,
        limit=settings.limit,
        images=count,
        images_available=len(images),
        questions=int((samples["system"] == ALWAYS_YES).sum()),
        confidence_level=settings.confidence_level,
        bootstrap_resamples=settings.bootstrap_resamples,
        systems=[
            _system(name, samples[samples["system"] == name], scoring, settings, context.seed)
            for name in (*models, ALWAYS_YES)
        ],
    )
    (context.output / VQA_METRICS_FILE).write_text(metrics.model_dump_json(indent=1) + "\n")
    table = pa.Table.from_pandas(samples, schema=VQA_SAMPLES_SCHEMA, preserve_index=False)
    table = with_limit(table.replace_schema_metadata(VQA_SAMPLES_SCHEMA.metadata), settings.limit)
    pq.write_table(table, context.output / VQA_SAMPLES_FILE)
    return StageReport(figures=_figures(metrics))


def _scoring(images: VqaImages, count: int) -> Scoring:
    found = {question.scoring for index in range(count) for question in images.questions(index)}
    if len(found) != 1:
        raise InputError(f"questions of {', '.join(sorted(found)) or 'nothing'}: one benchmark expected")
    return TypeAdapter(Scoring).validate_python(found.pop())


def _answers(
    images: VqaImages,
    shard: range,
    models: Mapping[str, LanguageModel],
    max_length: int,
    settings: Settings,
) -> pa.Table:
    """Table of `VQA_SAMPLES_SCHEMA`."""
    asked = [pair for index in shard for pair in _questions(images[index])]
    rows = [row for name, model in models.items() for row in _ask(name, model, asked, max_length, settings)]
    rows += [_row(ALWAYS_YES, one, "yes") for one in asked]
    return pa.Table.from_pylist(rows, schema=VQA_SAMPLES_SCHEMA)


def _questions(image: VqaImage) -> list[Asked]:
    picture = decode_image(image.image)
    return [Asked(image, picture, question) for question in image.questions]


def _ask(
    name: str, model: LanguageModel, asked: Sequence[Asked], max_length: int, settings: Settings
) -> list[dict[str, object]]:
    rows = []
    for batch in whole_images(asked, lambda one: one.image.image_id, settings.questions_per_batch):
        answers = model.answer(
            [one.picture for one in batch], [one.prompt for one in batch], max_length=max_length
        )
        rows += [_row(name, one, answer.text.strip()) for one, answer in zip(batch, answers, strict=True)]
    return rows


READ: dict[str, Callable[[str], str]] = {"pope": pope_answer, "vqav2": vqa_answer, "mme": mme_answer}


def _row(system: str, asked: Asked, text: str) -> dict[str, object]:
    question = asked.question
    read_as = READ[question.scoring](text)
    if question.scoring == "vqav2":
        score = vqa_accuracy(text, question.answers)
    else:
        score = float(read_as == question.answers[0])
    return {
        "system": system,
        "image_id": asked.image.image_id,
        "question_id": question.question_id,
        "category": question.category or "",
        "pair": question.pair,
        "asked": asked.prompt,
        "answer": text,
        "read_as": read_as,
        "answers": list(question.answers),
        "score": score,
    }


def _system(name: str, samples: pd.DataFrame, scoring: Scoring, settings: Settings, seed: int) -> VqaSystem:
    bootstrap = ImageBootstrap.draw(
        list(samples["image_id"]),
        resamples=settings.bootstrap_resamples,
        seed=seed,
        level=settings.confidence_level,
    )
    interval = bootstrap.ratio(samples["score"].to_numpy(), [1.0] * len(samples))
    return VqaSystem(
        system=name, score=Estimate(**interval._asdict()), figures=OFFICIAL_FIGURES[scoring](samples)
    )


def pope_figures(samples: pd.DataFrame) -> dict[str, float]:
    """`<file>.accuracy`, `.precision`, `.recall`, `.f1`, `.yes_ratio`, and their means over the files."""
    figures: dict[str, float] = {}
    for category, part in samples.groupby("category", sort=True):
        score = asdict(pope_score(list(part["answer"]), [answers[0] for answers in part["answers"]]))
        figures |= {f"{category}.{name}": value for name, value in score.items() if name != "questions"}
    names = dict.fromkeys(key.rpartition(".")[2] for key in figures)
    means = {name: fmean(v for key, v in figures.items() if key.rpartition(".")[2] == name) for name in names}
    return means | figures


def vqav2_figures(samples: pd.DataFrame) -> dict[str, float]:
    """`overall`, and by sort of answer, in percent with the scorer's two digits."""
    of_category = samples.groupby("category", sort=True)["score"].mean()
    return {"overall": round(100 * float(samples["score"].mean()), 2)} | {
        str(category): round(100 * float(value), 2) for category, value in of_category.items()
    }


def mme_figures(samples: pd.DataFrame) -> dict[str, float]:
    """`perception`, `cognition`, and the subtasks."""
    rows = zip(samples["category"], samples["pair"], samples["score"] == 1, strict=True)
    score = mme_score((category, pair, bool(right)) for category, pair, right in rows)
    return {
        "perception": score.perception,
        "cognition": score.cognition,
        **dict(sorted(score.subtasks.items())),
    }


OFFICIAL_FIGURES: dict[Scoring, Callable[[pd.DataFrame], dict[str, float]]] = {
    "pope": pope_figures,
    "vqav2": vqav2_figures,
    "mme": mme_figures,
}
HEADLINES: dict[Scoring, tuple[str, ...]] = {
    "pope": ("accuracy", "f1"),
    "vqav2": ("overall",),
    "mme": ("perception", "cognition"),
}


def _figures(metrics: VqaMetrics) -> dict[str, float | int | str]:
    figures: dict[str, float | int | str] = {
        "limit": "whole benchmark" if metrics.limit is None else metrics.limit,
        "images": metrics.images,
        "questions": metrics.questions,
    }
    for one in metrics.systems:
        figures |= {
            f"{one.system}_{name}": round(one.figures[name], 4) for name in HEADLINES[metrics.scoring]
        }
    return figures
