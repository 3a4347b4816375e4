"""Evaluates ALToLLM, before and after GRPO, on a prepared benchmark beside trivial baselines.

Every expression of every record is asked for a full-length and for an adaptive mask; masks are decoded
and scored at the original resolution, one expression at a time (the `standard` protocol). The trained models
are asked again as ALToLLM's released evaluation does (the `released` protocol): all expressions of a record in one
question and, where a benchmark has records without target, first whether there is such an object.

A benchmark of questions (POPE, VQAv2, MME) is answered in words, and scored as its publisher does.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from alto_models.altollm.answering import AltoLLM
from alto_models.data.shards import ShardRows
from alto_models.data.vqa import VqaImages, holds_questions
from alto_models.tokenizer.interface import Tokenizer, TokenizerSizes
from alto_models.tokenizer.model import load_tokenizer
from alto_models.training.precision import own_device
from data_contracts.errors import InputError
from data_contracts.schemas import REFERRING_SCHEMA
from jobs.benchmarking.evaluation import Evaluated, evaluate
from jobs.benchmarking.gallery import select_gallery
from jobs.benchmarking.language import LanguageModel, LanguageSystem
from jobs.benchmarking.questions import BenchmarkImage
from jobs.benchmarking.results import (
    ADAPTIVE,
    FULL,
    GALLERY_FILE,
    METRICS_FILE,
    NO_MODE,
    RELEASED_SAMPLES_FILE,
    SAMPLES_FILE,
    BenchmarkMetrics,
    Comparison,
    Estimate,
    with_limit,
)
from jobs.benchmarking.scoring import Scoreboard
from jobs.benchmarking.speed import SPEED_FILE, Speed, log_speed
from jobs.benchmarking.systems import LargestObject, MeanMask, Nothing, RandomObject, System
from jobs.benchmarking.untrained import UntrainedAltoLLM
from jobs.benchmarking.vqa import ask_and_score
from jobs.runner.command_line import run_from_command_line
from jobs.runner.context import Check, JobConfig, StageContext, StageReport

CHALLENGER = "altollm_grpo"
STARTING_POINT = "altollm_sft"
UNTRAINED = "untrained"
TEXT_IGNORED = "text_ignored"


class Config(JobConfig):
    limit: int | None = Field(
        gt=0, description="images evaluated at most; null for the whole benchmark; shown with every figure"
    )
    questions_per_batch: int = Field(gt=0, description="questions a model answers at once")
    images_per_shard: int = Field(gt=0, description="images between two points a killed run resumes from")
    bootstrap_resamples: int = Field(ge=100, description="resamples of whole images behind the intervals")
    confidence_level: float = Field(gt=0.5, lt=1, description="of the intervals")
    samples_shown: int = Field(
        ge=0, description="gallery samples for each reason (best, worst, longest, ...)"
    )
    max_malformed: float = Field(
        ge=0, le=1, description="share of malformed answers above which the check answers_well_formed fails"
    )


def run(config: Config, context: StageContext) -> StageReport:
    if context.partition is None:
        raise InputError("benchmark: name the benchmark with --partition")
    folder = context.inputs["prepare_benchmark"] / context.partition
    tokenizer = load_tokenizer(context.inputs["tokenizer_stage1_5"]).to(own_device())
    if holds_questions(folder):
        models = {name: load_model(context.inputs[name], tokenizer) for name in (CHALLENGER, STARTING_POINT)}
        return ask_and_score(VqaImages(folder), models, tokenizer.config.max_length, config, context)
    rows = ShardRows(folder, REFERRING_SCHEMA, None)
    systems = _language_systems(config, context, tokenizer)
    return compare_systems(rows, systems, tokenizer.config, config, context)


def compare_systems(
    rows: ShardRows,
    models: Sequence[LanguageSystem],
    code_space: TokenizerSizes,
    config: Config,
    context: StageContext,
    learned: Sequence[str] = (CHALLENGER, STARTING_POINT),
) -> StageReport:
    """Evaluate `models` beside the baselines that need no model, and write all results.

    learned: names of the trained ones; the first is the challenger, a second one what it was trained from.
    """
    count = min(len(rows), config.limit or len(rows))
    images = [BenchmarkImage.without_picture(rows, index) for index in range(count)]
    baselines = (MeanMask.of(images), LargestObject(), RandomObject(context.seed), Nothing())
    systems: list[System] = [*models, *baselines]
    counts = _counts(images)
    trained = [
        replace(model, presence_asked_first=counts["no_target_expressions"] > 0)
        for model in models
        if model.name in learned
    ]
    standard = evaluate(rows, count, systems, "standard", config, context)
    released = evaluate(rows, count, [*trained, *baselines], "released", config, context)
    if standard is None or released is None:
        return StageReport(figures={})  # only the first process's counts
    metrics = _metrics(
        _board(standard, code_space, config, context),
        _board(released, code_space, config, context),
        learned,
        benchmark=str(context.partition),
        limit=config.limit,
        images=count,
        images_available=len(rows),
        **counts,
        codebook_size=code_space.codebook_size,
        max_length=code_space.max_length,
        confidence_level=config.confidence_level,
        bootstrap_resamples=config.bootstrap_resamples,
    )
    gallery = select_gallery(standard.samples, rows, learned[0], ADAPTIVE, config.samples_shown)
    _write(context, metrics, gallery)
    for evaluated, name in ((standard, SAMPLES_FILE), (released, RELEASED_SAMPLES_FILE)):
        table = with_limit(evaluated.samples, config.limit)
        pq.write_table(table, context.output / name, compression="zstd")
    _keep_speed(context, standard, released)
    return _report(metrics, config)


def _board(
    evaluated: Evaluated, code_space: TokenizerSizes, config: Config, context: StageContext
) -> Scoreboard:
    return Scoreboard(
        evaluated.samples.to_pandas(),
        resamples=config.bootstrap_resamples,
        seed=context.seed,
        level=config.confidence_level,
        codebook_size=code_space.codebook_size,
    )


def _metrics(
    standard: Scoreboard, released: Scoreboard, learned: Sequence[str], **about: Any
) -> BenchmarkMetrics:
    """about: fields that say what was measured and how."""
    systems = dict.fromkeys(system for system, _ in standard.runs)
    return BenchmarkMetrics(
        protocol="standard",
        challenger=learned[0],
        starting_point=learned[1] if len(learned) > 1 else None,
        learned=list(learned),
        baselines=[name for name in systems if name not in learned],
        systems=[standard.metrics(one) for one in standard.runs],
        released=[released.metrics(one) for one in released.runs],
        slices=[part for one in standard.runs for part in standard.slices(one)],
        comparisons=_comparisons(standard, learned),
        **about,
    )


def _language_systems(config: Config, context: StageContext, tokenizer: Tokenizer) -> list[LanguageSystem]:
    challenger, start = (load_model(context.inputs[name], tokenizer) for name in (CHALLENGER, STARTING_POINT))
    models: dict[str, LanguageModel] = {
        CHALLENGER: challenger,
        STARTING_POINT: start,
        UNTRAINED: UntrainedAltoLLM(challenger, context.seed),
        TEXT_IGNORED: challenger,
    }
    return [
        LanguageSystem(
            name=name,
            model=model,
            tokenizer=tokenizer,
            batch_size=config.questions_per_batch,
            modes=(FULL, ADAPTIVE) if name in (CHALLENGER, STARTING_POINT) else (ADAPTIVE,),
            text_ignored=name == TEXT_IGNORED,
        )
        for name, model in models.items()
    ]


def load_model(folder: Path, tokenizer: Tokenizer) -> AltoLLM:
    """On the tokenizer's device. Raises InputError unless it was trained on a tokenizer with as many codes."""
    model = AltoLLM.load(folder).to(tokenizer.device)
    known, entries = len(model.vocabulary.codes), tokenizer.config.codebook_size
    if known != entries:
        raise InputError(
            f"{folder}: knows {known} mask tokens, the mask tokenizer has {entries} codes; train it on this tokenizer"
        )
    return model


def _counts(images: Sequence[BenchmarkImage]) -> dict[str, int]:
    records = [record for image in images for record in image.records]
    return {
        "records": len(records),
        "expressions": sum(len(record.expressions) for record in records),
        "no_target_expressions": sum(len(record.expressions) for record in records if record.rle is None),
    }


def _comparisons(board: Scoreboard, learned: Sequence[str]) -> list[Comparison]:
    """Every learned run against every baseline, and the first against its starting point in the same mode."""
    baselines = [one for one in board.runs if one[0] not in learned]
    pairs = [(one, baseline) for one in board.runs if one[0] in learned for baseline in baselines]
    if len(learned) > 1:
        pairs += [((learned[0], mode), (learned[1], mode)) for mode in (FULL, ADAPTIVE)]
    return [board.compare(*pair) for pair in pairs]


def _write(context: StageContext, metrics: BenchmarkMetrics, gallery: pa.Table) -> None:
    (context.output / METRICS_FILE).write_text(metrics.model_dump_json(indent=1) + "\n")
    pq.write_table(with_limit(gallery, metrics.limit), context.output / GALLERY_FILE, compression="zstd")


def _keep_speed(context: StageContext, standard: Evaluated, released: Evaluated) -> None:
    log_speed({"": standard.timings, "released_": released.timings}, context)
    speed = Speed.of(context.output / SAMPLES_FILE, standard.timings)
    (context.work / SPEED_FILE).write_text(speed.model_dump_json(indent=1) + "\n")


def _report(metrics: BenchmarkMetrics, config: Config) -> StageReport:
    figures: dict[str, float | int | str] = {
        "limit": "whole benchmark" if metrics.limit is None else metrics.limit,
        "images": metrics.images,
        "expressions": metrics.expressions,
    }
    for system in metrics.systems:
        for name in ("giou", "ciou", "n_acc", "t_acc", "mean_length"):
            estimate: Estimate | None = getattr(system, name)
            if estimate is not None and system.mode in (ADAPTIVE, NO_MODE):
                figures[f"{system.system}_{name}"] = round(estimate.value, 4)
    challenger = metrics.find(metrics.challenger, ADAPTIVE)
    assert challenger is not None
    return StageReport(
        figures=figures,
        checks=(
            Check(
                name="answers_well_formed",
                passed=challenger.malformed <= config.max_malformed,
                reason=f"{challenger.malformed_answers} of {challenger.samples} adaptive answers of "
                f"{metrics.challenger} are malformed ({challenger.malformed:.1%}, limit {config.max_malformed:.1%})",
            ),
        ),
    )


if __name__ == "__main__":
    run_from_command_line("benchmark")
