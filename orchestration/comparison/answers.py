"""Answers of one version to the benchmarks' questions: recorded ones from the cache, else those in the registry."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.errors import InputError
from jobs.benchmarking.results import SAMPLES_FILE, SAMPLES_SCHEMA
from jobs.benchmarking.speed import SPEED_FILE, Speed
from jobs.benchmarking.vqa_results import VQA_SAMPLES_FILE, VQA_SAMPLES_SCHEMA
from jobs.runner.layout import StageAddress
from jobs.runner.run import last_run_folder
from orchestration.comparison.figures import MASK_KEY
from orchestration.comparison.outputs import RecordedOutputs
from orchestration.comparison.versions import Version

TOKENIZER_BENCHMARK = "tokenizer_benchmark"
MASK_COLUMNS = {*MASK_KEY, "length", "iou", "boundary_iou"}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """masks, words, speed: None where there are none. coverage: how much was asked, or why nothing is known."""

    masks: pd.DataFrame | None
    words: pd.DataFrame | None
    speed: Speed | None
    coverage: str


class AnswerBook:
    """Of one version."""

    def __init__(self, root: Path, version: Version, outputs: RecordedOutputs) -> None:
        self._root = root
        self._version = version
        self._outputs = outputs

    def of_benchmark(self, name: str) -> Answers:
        address = f"benchmark@{name}"
        masks = self._read(address, SAMPLES_FILE)
        words = self._read(address, VQA_SAMPLES_FILE) if masks is None else None
        return Answers(
            masks=_table(masks, _never_null(SAMPLES_SCHEMA)),
            words=_table(words, _never_null(VQA_SAMPLES_SCHEMA)),
            speed=None if masks is None else self._speed(name, masks),
            coverage=self._coverage(address, masks or words),
        )

    def of_tokenizer(self) -> Answers:
        masks = self._read(TOKENIZER_BENCHMARK, SAMPLES_FILE)
        coverage = self._coverage(TOKENIZER_BENCHMARK, masks)
        return Answers(masks=_table(masks, MASK_COLUMNS), words=None, speed=None, coverage=coverage)

    def _read(self, address: str, file: str) -> bytes | None:
        entry = self._version.measured(address)
        content = None if entry is None else self._outputs.read(entry.data_version, file)
        benchmark = address.partition("@")[2]
        if content is None and benchmark and self._version.kept is not None:
            content = self._version.kept(benchmark, file)
        return content

    def _speed(self, benchmark: str, samples: bytes) -> Speed | None:
        """Kept with the version, or of the last run here where it gave just these answers."""
        kept = self._version.kept(benchmark, SPEED_FILE) if self._version.kept else None
        local = last_run_folder(self._root, StageAddress("benchmark", benchmark)) / SPEED_FILE
        for content in (kept, local.read_bytes() if local.is_file() else None):
            speed = None if content is None else Speed.model_validate_json(content)
            if speed is not None and speed.samples_sha256 == hashlib.sha256(samples).hexdigest():
                return speed
        return None

    def _coverage(self, address: str, table: bytes | None) -> str:
        if table is None:
            return f"{self._version.name}: {self._why_nothing(address)}"
        read = pq.read_table(pa.BufferReader(table), columns=["image_id"])
        limit = (read.schema.metadata or {}).get(b"limit")
        said = "the whole benchmark" if limit is None else f"limit {limit.decode()}, not the whole benchmark"
        return f"{self._version.name}: {len(read['image_id'].unique())} images, {said}"

    def _why_nothing(self, address: str) -> str:
        if address not in self._version.entries:
            return "was not measured on it"
        if self._version.measured(address) is None:
            return "the result that is recorded is of other models; run the benchmarks"
        return (
            "its results are not in DVC's cache; with a remote, `--fetch` brings them, else make them again"
        )


def _table(content: bytes | None, needed: set[str]) -> pd.DataFrame | None:
    """Raises InputError where columns are missing."""
    if content is None:
        return None
    table = pq.read_table(pa.BufferReader(content))
    if missing := needed - set(table.column_names):
        raise InputError(
            f"answers of an earlier version of the pipeline lack {', '.join(sorted(missing))}: run the benchmarks again"
        )
    return table.to_pandas()


def _never_null(schema: pa.Schema) -> set[str]:
    return {field.name for field in schema if not field.nullable}
