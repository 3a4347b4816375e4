"""Assets that change the model registry, not files; they have no DVC twin."""

from pathlib import Path

import dagster as dg

from jobs.runner.registry import REGISTERED_MODELS, register_recorded


def registration_asset(root: Path) -> dg.AssetsDefinition:
    @dg.asset(
        deps=sorted(REGISTERED_MODELS),
        group_name="shipping",
        kinds={"mlflow"},
        owners=["team:alto"],
        tags={"phase": "shipping"},
        description="Recorded checkpoints as versions of `alto-tokenizer` and `altollm`, newest aliased `challenger`.",
    )
    def registration() -> dg.MaterializeResult:
        versions = register_recorded(root)
        return dg.MaterializeResult(
            data_version=dg.DataVersion("-".join(version.data_version for version in versions)),
            metadata={version.model: f"version {version.version} ({version.how})" for version in versions},
        )

    return registration
