"""Assets that change the model registry, not files; they have no DVC twin."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from assets.code_links import code_references
from assets.described import Guide, described
from jobs.runner.registry import REGISTERED_MODELS, RegisteredVersion, register_recorded
from jobs.runner.staleness import lineage_state

REGISTRATION_CODE_VERSION = "1"
GUIDE = Guide(
    reads="the ledger (`dvc.lock`): only what it records is registered, never an experiment or a sweep.",
    good="a version of each model with the data version of its checkpoint; one that is there already stays.",
    failing="MLflow does not answer: start it, and materialize again or run `alto sync`. A stage without an up-to-date "
    "result is named: run it first.",
    page="docs/promotion.md",
)


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
        tags={"phase": "shipping", "device": "cpu"},
        description=described(
            "Recorded checkpoints as versions of `alto-tokenizer` and `altollm`, newest aliased `challenger`.",
            GUIDE,
        ),
        metadata=code_references(
            root, [("code", "jobs/runner/registry.py", "def register("), ("documentation", GUIDE.page, "")]
        ),
    )
    def registration() -> dg.MaterializeResult:
        versions = register_recorded(root, lineage_state(root))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(registration_version(versions)),
            metadata=registration_metadata(versions),
        )

    return registration
