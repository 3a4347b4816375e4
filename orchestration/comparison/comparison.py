"""`alto compare`: two versions side by side."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jobs.benchmark import CHALLENGER as MEASURED_SYSTEM
from jobs.benchmarking.results import ADAPTIVE, FULL
from orchestration.comparison.answers import TOKENIZER_BENCHMARK, AnswerBook, Answers
from orchestration.comparison.differences import Differences, find_differences
from orchestration.comparison.figures import (
    ANSWER_KEY,
    MASK_KEY,
    QUESTION_KEY,
    Measurement,
    answer_ratios,
    compare_tables,
    mask_ratios,
    tokenizer_ratios,
)
from orchestration.comparison.outputs import RecordedOutputs, recorded_outputs
from orchestration.comparison.samples import Extremes, find_extremes
from orchestration.comparison.versions import Version, find_version
from orchestration.promotion.speed_rule import NotComparable, slowdown


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """extremes: of the benchmarks that both sides answered the same questions of."""

    before: Version
    after: Version
    differences: Differences
    measurements: tuple[Measurement, ...]
    extremes: tuple[Extremes, ...]


def compare(root: Path, before: str, after: str, fetch: bool = False) -> Comparison:
    """Raises InputError where a side is not known. fetch: bring results that only the DVC remote has."""
    sides = (find_version(root, before), find_version(root, after))
    with recorded_outputs(root, fetch) as outputs:
        books = [AnswerBook(root, side, outputs) for side in sides]
        benchmarks = sorted(
            {key.partition("@")[2] for side in sides for key in side.entries if key.startswith("benchmark@")}
        )
        answers = {name: (books[0].of_benchmark(name), books[1].of_benchmark(name)) for name in benchmarks}
        measurements = [one for name, pair in answers.items() for one in _measured(name, *pair)]
        if any(TOKENIZER_BENCHMARK in side.entries for side in sides):
            measurements.append(_tokenizer(books[0].of_tokenizer(), books[1].of_tokenizer()))
        extremes = [_extremes(name, pair, sides, outputs) for name, pair in answers.items()]
        return Comparison(
            before=sides[0],
            after=sides[1],
            differences=find_differences(*sides, outputs.rows),
            measurements=tuple(measurements),
            extremes=tuple(one for one in extremes if one is not None),
        )


def _measured(benchmark: str, before: Answers, after: Answers) -> list[Measurement]:
    if before.words is not None or after.words is not None:
        words = [None if side.words is None else _own(side.words) for side in (before, after)]
        figures = compare_tables(words[0], words[1], ANSWER_KEY, answer_ratios)
        notes = (before.coverage, after.coverage)
        return [Measurement(benchmark=benchmark, mode="", protocol="in words", figures=figures, notes=notes)]
    return [_of_mode(benchmark, mode, before, after) for mode in (ADAPTIVE, FULL)]


def _of_mode(benchmark: str, mode: str, before: Answers, after: Answers) -> Measurement:
    figures = compare_tables(_run(before, mode), _run(after, mode), QUESTION_KEY, mask_ratios)
    notes = [before.coverage, after.coverage]
    slower = None
    if before.speed is None or after.speed is None:
        notes.append(
            "speed: times are not at hand for both; they stay on the machine that measured, and with a champion"
        )
    else:
        try:
            slower = slowdown(after.speed, before.speed, (MEASURED_SYSTEM, mode))
        except NotComparable as error:
            notes.append(f"speed: not comparable: {error}")
    return Measurement(
        benchmark=benchmark,
        mode=mode,
        protocol="standard",
        figures=figures,
        slowdown=slower,
        notes=tuple(notes),
    )


def _tokenizer(before: Answers, after: Answers) -> Measurement:
    return Measurement(
        benchmark="held-out masks",
        mode="",
        protocol="mask tokenizer alone",
        figures=compare_tables(before.masks, after.masks, MASK_KEY, tokenizer_ratios),
        notes=(before.coverage, after.coverage),
    )


def _extremes(
    benchmark: str, answers: tuple[Answers, Answers], sides: tuple[Version, Version], outputs: RecordedOutputs
) -> Extremes | None:
    before, after = (_run(side, ADAPTIVE) for side in answers)
    if before is None or after is None:
        return None
    prepared = [side.entries.get(f"prepare_benchmark@{benchmark}") for side in sides]
    found = [
        files for entry in prepared if entry is not None and (files := outputs.files(entry.data_version))
    ]
    return find_extremes(benchmark, before, after, found[0] if found else {})


def _run(answers: Answers, mode: str) -> pd.DataFrame | None:
    if answers.masks is None:
        return None
    own = _own(answers.masks)
    return own[own["mode"] == mode]


def _own(table: pd.DataFrame) -> pd.DataFrame:
    """Of the model itself: the tables hold other systems, too."""
    return table[table["system"] == MEASURED_SYSTEM]
