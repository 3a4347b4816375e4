"""Asks every system every question, shard by shard, so that a killed run redoes one shard at most."""

import time
from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from alto_models.data.shards import ShardRows
from jobs.benchmarking.kept_tables import kept_table
from jobs.benchmarking.questions import BenchmarkImage, EvaluationProtocol
from jobs.benchmarking.results import SAMPLES_SCHEMA
from jobs.benchmarking.rows import sample_row
from jobs.benchmarking.systems import System
from jobs.runner.context import StageContext


def evaluate(
    rows: ShardRows,
    count: int,
    systems: Sequence[System],
    protocol: EvaluationProtocol,
    questions: int,
    images_per_shard: int,
    context: StageContext,
) -> pa.Table:
    """Table of `SAMPLES_SCHEMA` for the first `count` images, sorted by system, mode and question.

    questions: that the protocol asks about these images. Finished shards are kept in `context.work` and found again
    by the next run with the same inputs.
    """
    total = questions * sum(len(system.modes) for system in systems)
    shards = []
    with context.progress(total, f"Benchmark, protocol {protocol}", "answer") as bar:
        for number, start in enumerate(range(0, count, images_per_shard)):
            path = context.work / f"answers-{protocol}-{number:05d}.parquet"
            indices = range(start, min(start + images_per_shard, count))
            answer = partial(_evaluate_shard, rows, indices, systems, protocol, number, context)
            shards.append(kept_table(path, SAMPLES_SCHEMA, answer))
            bar.update(len(shards[-1]))
    return _by_system(pa.concat_tables(shards), systems)


def _evaluate_shard(
    rows: ShardRows,
    indices: range,
    systems: Sequence[System],
    protocol: EvaluationProtocol,
    number: int,
    context: StageContext,
) -> pa.Table:
    """Answers about the images at `indices`, and their speed as points of curves, which belong to no hashed output."""
    images = [BenchmarkImage.from_row(rows.row(index)) for index in indices]
    questions = [question for image in images for question in image.questions(protocol)]
    prefix = "" if protocol == "standard" else f"{protocol}_"
    found = []
    for system in systems:
        for mode in system.modes:
            started = time.perf_counter()
            predictions = system.predict(questions, mode)
            seconds = time.perf_counter() - started
            found += [
                sample_row(question, prediction, system.name, mode)
                for question, prediction in zip(questions, predictions, strict=True)
            ]
            codes = sum(len(prediction.codes) for prediction in predictions)
            if codes:
                name = f"{prefix}{system.name}_{mode}"
                context.log_metrics(
                    number,
                    **{
                        f"{name}_answers_per_second": len(questions) / seconds,
                        f"{name}_mask_tokens_per_second": codes / seconds,
                        f"{name}_seconds_per_answer": seconds / len(questions),
                    },
                )
    return pa.Table.from_pylist(found, schema=SAMPLES_SCHEMA)


def _by_system(samples: pa.Table, systems: Sequence[System]) -> pa.Table:
    runs: dict[tuple[str, str], list[int]] = {
        (system.name, mode): [] for system in systems for mode in system.modes
    }
    names = zip(samples["system"].to_pylist(), samples["mode"].to_pylist(), strict=True)
    for index, run in enumerate(names):
        runs[run].append(index)
    return samples.take(pa.array([index for rows in runs.values() for index in rows], pa.int64()))
