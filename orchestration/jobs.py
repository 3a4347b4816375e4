"""One Dagster job a phase, and the weekly retraining."""

from typing import TYPE_CHECKING

import dagster as dg

from orchestration.partitions import SA1B_BATCHES

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

PHASES: dict[str, tuple[str, ...]] = {
    "sa1b_data": ("acquire_sa1b", "prepare_sa1b"),
    "referring_data": ("acquire_referring", "prepare_referring"),
    "benchmark_data": ("acquire_benchmark", "prepare_benchmark"),
    "tokenizer_training": ("base_weights", "tokenizer_stage1", "tokenizer_stage1_5", "tokenizer_benchmark"),
    "altollm_training": ("mask_tokens", "altollm_sft", "altollm_grpo"),
    "length_sweep": ("grpo_sweep",),
    "evaluation": ("benchmark",),
    "reporting": ("benchmark_report", "registration", "promotion"),
}
RETRAINING = (*PHASES["tokenizer_training"], *PHASES["altollm_training"])


def phase_jobs() -> "list[UnresolvedAssetJobDefinition]":
    partitions = {"sa1b_data": SA1B_BATCHES}
    return [
        dg.define_asset_job(
            name,
            selection=dg.AssetSelection.assets(*stages),
            partitions_def=partitions.get(name),
            description=f"Brings {', '.join(stages)} up to date.",
        )
        for name, stages in PHASES.items()
    ]


retraining = dg.define_asset_job(
    "retraining",
    selection=dg.AssetSelection.assets(*RETRAINING),
    description="Tokenizer and ALToLLM anew from the prepared data; stages whose inputs did not change are skipped.",
)
