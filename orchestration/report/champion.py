"""The champion beside the challenger: its answers to the same questions, and what the rules of promotion say."""

from dataclasses import dataclass
from functools import partial

from data_contracts.errors import InputError
from jobs.benchmarking.results import SAMPLES_FILE, BenchmarkMetrics, SystemMetrics
from jobs.benchmarking.scoring import Scoreboard
from jobs.runner.lineage import Lineage, read_yaml
from jobs.runner.registry import CHAMPION
from orchestration.promotion.champion import ALTOLLM, Registry
from orchestration.promotion.decision import Decision, decide
from orchestration.promotion.evidence import Kept, Measured, kept_table


@dataclass(frozen=True, kw_only=True)
class ChampionView:
    """rows: benchmark -> figures of the champion in each prompt mode, computed from the answers kept with it.

    problem: why nothing is known of a champion; `rows` and `decision` are then empty.
    """

    version: str | None
    rows: dict[str, list[SystemMetrics]]
    decision: Decision | None
    problem: str

    @property
    def verdict(self) -> str:
        """One sentence; empty where nothing is known."""
        if self.decision is None:
            return ""
        if self.version == self.decision.challenger:
            return f"{ALTOLLM} {self.version}, measured here, is the champion."
        return f"{self.decision.summary}."


def view_champion(lineage: Lineage) -> ChampionView:
    try:
        registry = Registry(lineage.root)
        champion = registry.version(ALTOLLM, CHAMPION)
        decision = decide(lineage.root)
        rows = {}
        if champion is not None:
            kept = partial(registry.kept, champion)
            seed = read_yaml(lineage.root / "params.yaml")["seed"]
            rows = {name: _rows(kept, metrics, seed) for name, metrics in Measured(lineage).masks.items()}
    except InputError as error:
        return ChampionView(version=None, rows={}, decision=None, problem=str(error))
    version = None if champion is None else str(champion.version)
    return ChampionView(version=version, rows=rows, decision=decision, problem="")


def _rows(kept: Kept, metrics: BenchmarkMetrics, seed: int) -> list[SystemMetrics]:
    """Empty where the champion was not measured on this benchmark. seed: the benchmarks' own, for equal intervals."""
    samples = kept_table(kept, metrics.benchmark, SAMPLES_FILE)
    if samples is None:
        return []
    board = Scoreboard(
        samples[samples["system"] == metrics.challenger],
        resamples=metrics.bootstrap_resamples,
        seed=seed,
        level=metrics.confidence_level,
        codebook_size=metrics.codebook_size,
    )
    return [board.metrics(run) for run in board.runs]
