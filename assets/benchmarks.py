"""Benchmark assets."""

from assets.described import Guide
from assets.stage_asset import StageAsset, StageCheck
from assets.tokenizer import BEATS_BASELINES

ASSETS = (
    StageAsset(
        stage="benchmark",
        group="benchmarks",
        description="ALToLLM and trivial baselines on one evaluation set, per-sample results included.",
        guide=Guide(
            reads=(
                "the prepared benchmark of the same name, the models of `altollm_sft` and `altollm_grpo`, "
                "and the tokenizer that decodes their answers."
            ),
            good=(
                "`altollm_grpo_giou` is above that of every baseline and of the untrained model, and that "
                "of the model which ignores the text is much lower: the words matter."
            ),
            failing=(
                "`answers_well_formed` that warns: the model has not learned the form of an answer; look "
                "at the samples in the report and at `altollm_sft`."
            ),
            page="docs/benchmarks.md",
        ),
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
        guide=Guide(
            reads="results of every benchmark and of `tokenizer_benchmark`.",
            good=(
                "`beats_baselines` passed. Open `report` (as recorded) or `whole report` (with curves, "
                "champion, data and versions)."
            ),
            failing=(
                "`beats_baselines` that warns names the figures that a baseline wins. `beats_champion` "
                "that warns is no fault: the challenger is not shown to be better, and stays challenger."
            ),
            page="docs/report.md",
        ),
        kinds=frozenset({"html", "matplotlib"}),
        checks=(BEATS_BASELINES,),
    ),
)
