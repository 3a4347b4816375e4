"""Promotion in Dagster: a check that only compares, and the asset that acts.

What they compare with takes seconds to import, and every run loads this module: so it is imported inside.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from assets.code_links import code_references
from assets.described import Guide, described
from assets.stage_asset import page_link
from data_contracts.errors import InputError
from jobs.runner.layout import COMPARISON

if TYPE_CHECKING:
    from orchestration.promotion.decision import Decision

GUIDE = Guide(
    reads="the registered challenger, its results on every benchmark, and those that the champion was crowned with.",
    good="`promoted` is true, or `findings` says for every rule why not. A refusal is a result, not a failure.",
    failing="the registry does not answer, or nothing is registered: start MLflow, run `alto sync`, materialize again. "
    "To undo a promotion: `alto promote --rollback`.",
    page="docs/promotion.md",
)


def beats_champion_check(root: Path) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset="benchmark_report",
        name="beats_champion",
        additional_deps=["registration"],  # the challenger is the one registered in the same run
        description="The registered challenger beats the champion under the rules in params.yaml. Changes nothing.",
    )
    def beats_champion() -> dg.AssetCheckResult:
        from orchestration.promotion.decision import decide

        try:
            decision = decide(root)
        except InputError as error:
            return dg.AssetCheckResult(
                passed=False, severity=dg.AssetCheckSeverity.WARN, description=str(error)
            )
        return dg.AssetCheckResult(
            passed=decision.better,
            severity=dg.AssetCheckSeverity.WARN,
            description=decision.summary,
            metadata=decision_metadata(decision),
        )

    return beats_champion


def promotion_asset(root: Path) -> dg.AssetsDefinition:
    @dg.asset(
        deps=["registration", "benchmark_report"],
        group_name="shipping",
        kinds={"mlflow"},
        owners=["team:alto"],
        tags={"phase": "shipping", "device": "cpu"},
        description=described(
            "Gives the alias `champion` to the challenger where it is better; says why not where it is not.",
            GUIDE,
        ),
        metadata=code_references(
            root,
            [
                ("code", "orchestration/promotion/decision.py", "def promote("),
                ("rules", "params.yaml", "promotion:"),
                ("documentation", GUIDE.page, ""),
            ],
        ),
    )
    def promotion() -> dg.MaterializeResult:
        from orchestration.promotion.decision import promote

        try:
            decision = promote(root)
        except InputError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        champion = decision.challenger if decision.better else decision.champion
        return dg.MaterializeResult(
            data_version=dg.DataVersion(str(champion)),
            metadata={"promoted": decision.better, **decision_metadata(decision)},
        )

    return promotion


def decision_metadata(decision: "Decision") -> dict[str, dg.MetadataValue]:
    from orchestration.promotion.table import markdown_table

    metadata: dict[str, dg.MetadataValue] = {
        "decision": dg.MetadataValue.text(decision.summary),
        "findings": dg.MetadataValue.md(markdown_table(decision.findings)),
    }
    if decision.champion is not None:
        metadata["side by side"] = page_link(COMPARISON)
    return metadata
