"""How fast systems answer: telemetry, kept apart from the hashed results.

The time is that of answering in batches of `questions_per_batch`, masks drawn at the size of the image included.
"""

import hashlib
import json
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import torch

from alto_models.training.processes import process_count
from jobs.benchmarking.results import Result
from jobs.runner.context import StageContext

SPEED_FILE = "speed.json"  # in the work folder while the stage runs, then beside its `last_run.json`
_KEY = b"timings"


class Timed(Result):
    """What one system took for the questions of a shard in one prompt mode.

    machine: what it ran on; times of different ones are not comparable. seconds: on the clock. processor_seconds: of
    all threads of the process, which other processes of the machine hardly change; says nothing of a GPU.
    """

    machine: str
    system: str
    mode: str
    answers: int
    mask_tokens: int
    seconds: float
    processor_seconds: float

    @property
    def compared_seconds(self) -> float:
        """An answer, of the processor where the model runs there."""
        return (self.processor_seconds if self.machine.startswith(PROCESSOR) else self.seconds) / self.answers


class Speed(Result):
    """`speed.json`. samples_sha256: of the sample table that was made at this speed. shards: timings of each."""

    samples_sha256: str
    shards: list[list[Timed]]

    @classmethod
    def of(cls, samples: Path, shards: list[list[Timed]]) -> "Speed":
        return cls(samples_sha256=_sha256(samples), shards=shards)

    def belongs_to(self, samples: Path) -> bool:
        return self.samples_sha256 == _sha256(samples)


PROCESSOR = "processor"


def machine(questions_per_batch: int) -> str:
    """What the speed of this process depends on, besides the model."""
    if torch.cuda.is_available():
        device = f"GPU {torch.cuda.get_device_name()}"
    else:
        device = f"{PROCESSOR} {_processor()}, {torch.get_num_threads()} threads"
    return (
        f"{device}, {process_count()} processes, batches of {questions_per_batch}, torch {torch.__version__}"
    )


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.machine()


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """The dictionary has `seconds` and `processor_seconds` of the block when it has been left."""
    watch: dict[str, float] = {}
    seconds, processor_seconds = time.perf_counter(), time.process_time()
    yield watch
    watch["seconds"] = time.perf_counter() - seconds
    watch["processor_seconds"] = time.process_time() - processor_seconds


def with_timings(shard: pa.Table, timings: Sequence[Timed]) -> pa.Table:
    """The table of a shard, which keeps its timings until all shards are there."""
    return shard.replace_schema_metadata({_KEY: json.dumps([one.model_dump() for one in timings])})


def timings_of(shard: pa.Table) -> list[Timed]:
    return [Timed.model_validate(one) for one in json.loads(shard.schema.metadata[_KEY])]


def log_speed(protocols: Mapping[str, Sequence[Sequence[Timed]]], context: StageContext) -> None:
    """A point of the run's curves for each shard. protocols: prefix of the names -> timings of each shard."""
    for number, timings in enumerate(zip(*protocols.values(), strict=True)):
        values = {}
        for prefix, ones in zip(protocols, timings, strict=True):
            for one in ones:
                name = f"{prefix}{one.system}_{one.mode}"
                values[f"{name}_answers_per_second"] = one.answers / one.seconds
                values[f"{name}_mask_tokens_per_second"] = one.mask_tokens / one.seconds
                values[f"{name}_seconds_per_answer"] = one.seconds / one.answers
        context.log_metrics(number, **values)


def speed_lines(speed: Speed) -> list[str]:
    """For people: a line for each system and prompt mode, over all shards."""
    timings: dict[tuple[str, str], list[Timed]] = {}
    for shard in speed.shards:
        for one in shard:
            timings.setdefault((one.system, one.mode), []).append(one)
    lines = []
    for (system, mode), ones in timings.items():
        seconds = sum(one.seconds for one in ones)
        an_answer = seconds / sum(one.answers for one in ones)
        tokens = sum(one.mask_tokens for one in ones) / seconds
        lines.append(f"{system}, {mode}: {an_answer:.3g} s an answer, {tokens:.3g} mask tokens a second")
    return [*lines, *sorted({f"on {one.machine}" for ones in timings.values() for one in ones})]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
