"""Assets that change the model registry, not files; they have no DVC twin."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from jobs.runner.registry import REGISTERED_MODELS, RegisteredVersion, register_recorded
from jobs.runner.staleness import lineage_state

REGISTRATION_CODE_VERSION = "1"


def registration_version(versions: Sequence[RegisteredVersion]) -> str:
    """Data version of `registration`: which outputs are registered."""
    return "-".join(version.data_version for version in versions)


def registration_metadata(versions: Sequence[RegisteredVersion]) -> dict[str, str]:
    return {version.model: f"version {version.version} ({version.how})" for version in versions}


def registration_asset(root: Path) -> dg.AssetsDefinition:
    @dg.asset(
        deps=sorted(REGISTERED_MODELS),
        code_version=REGISTRATION_CODE_VERSION,
        group_name="shipping",
        kinds={"mlflow"},
        owners=["team:alto"],
        tags={"phase": "shipping"},
        description="Recorded checkpoints as versions of `alto-tokenizer` and `altollm`, newest aliased `challenger`.",
    )
    def registration() -> dg.MaterializeResult:
        versions = register_recorded(root, lineage_state(root))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(registration_version(versions)),
            metadata=registration_metadata(versions),
        )

    return registration
