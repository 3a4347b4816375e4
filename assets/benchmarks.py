"""Benchmark assets."""

from assets.stage_asset import StageAsset, StageCheck

ASSETS = (
    StageAsset(
        stage="benchmark",
        group="benchmarks",
        description="ALToLLM and trivial baselines on one evaluation set, per-sample results included.",
        kinds=frozenset({"pytorch", "parquet"}),
        needs_gpu=True,
    ),
    StageAsset(
        stage="benchmark_report",
        group="benchmarks",
        description="One self-contained HTML page with every learned result beside its baselines.",
        kinds=frozenset({"html", "matplotlib"}),
        checks=(
            StageCheck(
                name="beats_baselines",
                description="Every learned result is better than every trivial baseline on the same samples.",
            ),
        ),
    ),
)
