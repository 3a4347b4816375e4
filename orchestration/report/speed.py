"""How fast the systems of the benchmarks answered, from the telemetry of the newest runs."""

from collections import defaultdict
from dataclasses import dataclass

from jobs.benchmarking.results import SAMPLES_FILE
from jobs.benchmarking.speed import SPEED_FILE, Speed, Timed
from jobs.runner.layout import output_folder
from jobs.runner.lineage import Lineage
from jobs.runner.run import last_run_folder


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """All answers of a system in one mode on one benchmark, of one kind of machine."""

    benchmark: str
    system: str
    mode: str
    machine: str
    answers: int
    mask_tokens: int
    seconds: float


def speed_rows(lineage: Lineage) -> list[SpeedRow]:
    """Of the benchmarks whose results here were made at a known speed."""
    rows = []
    for address in lineage.stage("benchmark").addresses:
        path = last_run_folder(lineage.root, address) / SPEED_FILE
        samples = lineage.root / output_folder(lineage.profile, address) / SAMPLES_FILE
        if path.is_file() and samples.is_file():
            speed = Speed.model_validate_json(path.read_bytes())
            if speed.belongs_to(samples):
                rows += _rows(str(address.partition), speed)
    return rows


def _rows(benchmark: str, speed: Speed) -> list[SpeedRow]:
    runs: dict[tuple[str, str, str], list[Timed]] = defaultdict(list)
    for shard in speed.shards:
        for one in shard:
            runs[one.system, one.mode, one.machine].append(one)
    return [
        SpeedRow(
            benchmark=benchmark,
            system=system,
            mode=mode,
            machine=machine,
            answers=sum(one.answers for one in timed),
            mask_tokens=sum(one.mask_tokens for one in timed),
            seconds=sum(one.seconds for one in timed),
        )
        for (system, mode, machine), timed in runs.items()
        if any(one.mask_tokens for one in timed)
    ]
