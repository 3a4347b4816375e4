"""What the recorded benchmarks say of the challenger, and how that compares with what was kept of the champion."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.benchmarking.results import (
    METRICS_FILE,
    SAMPLES_FILE,
    SAMPLES_SCHEMA,
    BenchmarkMetrics,
    read_metrics,
    read_table,
)
from jobs.benchmarking.speed import SPEED_FILE, Speed
from jobs.benchmarking.vqa_results import (
    VQA_METRICS_FILE,
    VQA_SAMPLES_FILE,
    VQA_SAMPLES_SCHEMA,
    VqaMetrics,
)
from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.lineage import Lineage
from jobs.runner.run import last_run_folder
from orchestration.promotion.rules import Finding, PairedSamples, PromotionRules, compare_with_champion
from orchestration.promotion.speed_rule import compare_speed
from orchestration.promotion.vqa_rule import PairedAnswers, compare_answers

Kept = Callable[[str, str], bytes | None]
"""Benchmark and name of a file -> what was kept of the champion's results, None for nothing."""


class Measured:
    """The recorded results of every benchmark.

    masks: benchmark -> figures; questions: the same for those answered in words.
    """

    def __init__(self, lineage: Lineage) -> None:
        self._lineage = lineage
        self._names = [str(address.partition) for address in lineage.stage("benchmark").addresses]

    def folder(self, benchmark: str) -> Path:
        address = StageAddress("benchmark", benchmark)
        return self._lineage.root / output_folder(self._lineage.profile, address)

    @cached_property
    def questions(self) -> dict[str, VqaMetrics]:
        files = {name: self.folder(name) / VQA_METRICS_FILE for name in self._names}
        return {name: read_metrics(file, VqaMetrics) for name, file in files.items() if file.is_file()}

    @cached_property
    def masks(self) -> dict[str, BenchmarkMetrics]:
        names = [name for name in self._names if name not in self.questions]
        return {name: read_metrics(self.folder(name) / METRICS_FILE, BenchmarkMetrics) for name in names}

    def speed(self, benchmark: str) -> Speed | None:
        """None where these results were not measured here, but restored or brought from elsewhere."""
        file = self._speed_file(benchmark)
        speed = read_metrics(file, Speed) if file.is_file() else None
        samples = self.folder(benchmark) / SAMPLES_FILE
        return speed if speed is not None and speed.belongs_to(samples) else None

    def to_keep(self) -> dict[str, list[Path]]:
        """Benchmark -> files with which a later challenger is compared."""
        kept = {name: [self.folder(name) / VQA_SAMPLES_FILE] for name in self.questions}
        for name in self.masks:
            speed = [self._speed_file(name)] if self.speed(name) else []
            kept[name] = [self.folder(name) / SAMPLES_FILE, *speed]
        return kept

    def _speed_file(self, benchmark: str) -> Path:
        return last_run_folder(self._lineage.root, StageAddress("benchmark", benchmark)) / SPEED_FILE


def findings_against(rules: PromotionRules, measured: Measured, kept: Kept) -> list[Finding]:
    """Every rule on every benchmark, challenger against champion."""
    findings, pairs = [], []
    for name, metrics in measured.masks.items():
        theirs = kept_table(kept, name, SAMPLES_FILE)
        if theirs is None:
            findings.append(_not_kept(name))
            continue
        ours = read_table(measured.folder(name) / SAMPLES_FILE, SAMPLES_SCHEMA).to_pandas()
        run = (metrics.challenger, rules.mode)
        pairs.append(
            PairedSamples(
                benchmark=name,
                codebook_size=metrics.codebook_size,
                challenger=_of_run(ours, *run),
                champion=_of_run(theirs, *run),
            )
        )
        if rules.max_slowdown is not None:
            speed = kept(name, SPEED_FILE)
            before = None if speed is None else Speed.model_validate_json(speed)
            findings.append(compare_speed(name, measured.speed(name), before, run, rules.max_slowdown))
    return [*findings, *_in_words(rules, measured, kept), *compare_with_champion(rules, pairs)]


def _in_words(rules: PromotionRules, measured: Measured, kept: Kept) -> list[Finding]:
    findings = []
    for name, metrics in measured.questions.items():
        if metrics.scoring not in rules.max_vqa_loss:
            continue
        theirs = kept_table(kept, name, VQA_SAMPLES_FILE)
        if theirs is None:
            findings.append(_not_kept(name))
            continue
        ours = read_table(measured.folder(name) / VQA_SAMPLES_FILE, VQA_SAMPLES_SCHEMA).to_pandas()
        challenger = metrics.systems[0].system
        pair = PairedAnswers(
            benchmark=name,
            scoring=metrics.scoring,
            challenger=ours[ours["system"] == challenger],
            champion=theirs[theirs["system"] == challenger],
        )
        findings.append(compare_answers(rules, pair))
    return findings


def _of_run(samples: pd.DataFrame, system: str, mode: str) -> pd.DataFrame:
    return samples[(samples["system"] == system) & (samples["mode"] == mode)]


def kept_table(kept: Kept, benchmark: str, file: str) -> pd.DataFrame | None:
    """A table of the champion's results; None where it was not kept."""
    content = kept(benchmark, file)
    return None if content is None else pq.read_table(pa.BufferReader(content)).to_pandas()


def _not_kept(benchmark: str) -> Finding:
    return Finding(
        subject=benchmark,
        rule="the champion was measured on it",
        found="no results are kept with the champion",
        passed=False,
    )
