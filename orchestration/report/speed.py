"""How fast the systems of the benchmarks answered, from the telemetry of the newest runs."""

from collections import defaultdict
from dataclasses import dataclass

from jobs.benchmarking.speed import Speed, Timed
from jobs.runner.lineage import Lineage
from orchestration.promotion.evidence import Measured


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
    measured = Measured(lineage)
    names = [str(address.partition) for address in lineage.stage("benchmark").addresses]
    speeds = {name: measured.speed(name) for name in names}
    return [row for name, speed in speeds.items() if speed is not None for row in _rows(name, speed)]


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
