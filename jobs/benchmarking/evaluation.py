"""Asks every system every question, shard by shard."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa

from alto_models.data.shards import ShardRows
from jobs.benchmarking.questions import BenchmarkImage, EvaluationProtocol, Question
from jobs.benchmarking.results import NO_MODE, SAMPLES_SCHEMA
from jobs.benchmarking.rows import sample_row
from jobs.benchmarking.shards import in_shards
from jobs.benchmarking.speed import Timed, machine, stopwatch, timings_of, with_timings
from jobs.benchmarking.systems import System
from jobs.runner.context import StageContext


class BatchSettings(Protocol):
    """The parameters of the stage `benchmark` that say what is done together."""

    @property
    def questions_per_batch(self) -> int: ...
    @property
    def images_per_shard(self) -> int: ...


class Evaluated(NamedTuple):
    """samples: of `SAMPLES_SCHEMA`, sorted by system, mode and question. timings: of each shard."""

    samples: pa.Table
    timings: list[list[Timed]]


def evaluate(
    rows: ShardRows,
    count: int,
    systems: Sequence[System],
    protocol: EvaluationProtocol,
    settings: BatchSettings,
    context: StageContext,
) -> Evaluated | None:
    """Answers of all systems on the first `count` images; None in all processes but the first."""

    def answers(images: range) -> pa.Table:
        shard = [BenchmarkImage.from_row(rows.row(index)) for index in images]
        questions = [question for image in shard for question in image.questions(protocol)]
        return _answers(questions, systems, machine(settings.questions_per_batch))

    shards = in_shards(protocol, count, settings.images_per_shard, answers, context)
    if shards is None:
        return None
    samples = pa.concat_tables([shard.cast(SAMPLES_SCHEMA) for shard in shards])
    return Evaluated(_by_system(samples, systems), [timings_of(shard) for shard in shards])


def _answers(questions: Sequence[Question], systems: Sequence[System], where: str) -> pa.Table:
    rows, timings = [], []
    for system in systems:
        for mode in system.modes:
            with stopwatch() as watch:
                predictions = system.predict(questions, mode)
            rows += [
                sample_row(question, prediction, system.name, mode)
                for question, prediction in zip(questions, predictions, strict=True)
            ]
            if mode != NO_MODE:
                timings.append(
                    Timed(
                        machine=where,
                        system=system.name,
                        mode=mode,
                        answers=len(questions),
                        mask_tokens=sum(len(prediction.codes) for prediction in predictions),
                        **watch,
                    )
                )
    return with_timings(pa.Table.from_pylist(rows, schema=SAMPLES_SCHEMA), timings)


def _by_system(samples: pa.Table, systems: Sequence[System]) -> pa.Table:
    runs: dict[tuple[str, str], list[int]] = {
        (system.name, mode): [] for system in systems for mode in system.modes
    }
    names = zip(samples["system"].to_pylist(), samples["mode"].to_pylist(), strict=True)
    for index, run in enumerate(names):
        runs[run].append(index)
    return samples.take(pa.array([index for rows in runs.values() for index in rows], pa.int64()))
