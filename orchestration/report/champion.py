"""The champion beside the challenger: its answers to the same questions, and what the rules of promotion say."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.errors import InputError
from jobs.benchmarking.results import (
    METRICS_FILE,
    SAMPLES_FILE,
    BenchmarkMetrics,
    SystemMetrics,
    read_metrics,
)
from jobs.benchmarking.scoring import Scoreboard
from jobs.runner.layout import stage_folder
from jobs.runner.lineage import Lineage
from jobs.runner.registry import CHAMPION
from orchestration.promotion.champion import ALTOLLM, Registry
from orchestration.promotion.decision import Decision, decide


@dataclass(frozen=True, kw_only=True)
class ChampionView:
    """rows: benchmark -> figures of the champion in each prompt mode, recomputed from the answers kept with it.

    problem: why nothing is known of a champion; `rows` and `decision` are then empty.
    """

    version: str | None
    rows: dict[str, list[SystemMetrics]]
    decision: Decision | None
    problem: str


def view_champion(lineage: Lineage) -> ChampionView:
    try:
        registry = Registry(lineage.root)
        champion = registry.version(ALTOLLM, CHAMPION)
        decision = decide(lineage.root)
    except InputError as error:
        return ChampionView(version=None, rows={}, decision=None, problem=str(error))
    rows = {}
    if champion is not None:
        folder = lineage.root / stage_folder(lineage.profile, "benchmark")
        for path in sorted(folder.glob(f"*/{METRICS_FILE}")):
            metrics = read_metrics(path, BenchmarkMetrics)
            rows[metrics.benchmark] = _rows(registry, champion, metrics)
    return ChampionView(
        version=None if champion is None else str(champion.version),
        rows=rows,
        decision=decision,
        problem="",
    )


def _rows(registry: Registry, champion: object, metrics: BenchmarkMetrics) -> list[SystemMetrics]:
    """Empty where the champion was not measured on this benchmark."""
    kept = registry.kept(champion, metrics.benchmark, SAMPLES_FILE)
    if kept is None:
        return []
    samples = pq.read_table(pa.BufferReader(kept)).to_pandas()
    board = Scoreboard(
        samples[samples["system"] == metrics.challenger],
        resamples=metrics.bootstrap_resamples,
        seed=0,
        level=metrics.confidence_level,
        codebook_size=metrics.codebook_size,
    )
    return [board.metrics(run) for run in board.runs]
