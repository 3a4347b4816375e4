"""Benchmark assets."""

from assets.stage_asset import StageAsset, StageCheck
from assets.tokenizer import BEATS_BASELINES

ASSETS = (
    StageAsset(
        stage="benchmark",
        group="benchmarks",
        description="ALToLLM and trivial baselines on one evaluation set, per-sample results included.",
        kinds=frozenset({"pytorch", "parquet"}),
        checks=(
            StageCheck(
                name="answers_well_formed",
                description="The share of answers that are neither a mask nor 'no target' is within its limit.",
            ),
        ),
        needs_gpu=True,
    ),
    StageAsset(
        stage="benchmark_report",
        group="benchmarks",
        description="One self-contained HTML page with every learned result beside its baselines.",
        kinds=frozenset({"html", "matplotlib"}),
        checks=(BEATS_BASELINES,),
    ),
)
