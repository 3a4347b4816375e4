"""A contract as a Great Expectations suite: validated on the accepted rows, shown as Data Docs."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_contracts.rules import Contract


@dataclass(frozen=True, kw_only=True)
class Validation:
    """failed: rule -> how many values break it, or why it could not be computed."""

    expectations: int
    failed: dict[str, str]


def validate(contract: Contract, frame: pd.DataFrame, data_docs: Path) -> Validation:
    """Validate a contract's frame and build Data Docs, which hold times, into an empty folder."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    suite = gx.ExpectationSuite(
        name=contract.name, expectations=[rule.expectation() for rule in contract.rules]
    )
    asset = context.data_sources.add_pandas(contract.name).add_dataframe_asset("accepted")
    definition = gx.ValidationDefinition(
        name=contract.name,
        data=asset.add_batch_definition_whole_dataframe("accepted"),
        suite=context.suites.add(suite),
    )
    result = context.validation_definitions.add(definition).run(batch_parameters={"dataframe": frame})
    _build_data_docs(context, data_docs)
    failed = {
        outcome.expectation_config.meta["rule"]: _failure(outcome)
        for outcome in result.results
        if not outcome.success
    }
    return Validation(expectations=len(result.results), failed=dict(sorted(failed.items())))


def _failure(outcome: Any) -> str:
    if "unexpected_count" in outcome.result:
        return f"{outcome.result['unexpected_count']} of {outcome.result['element_count']}"
    return "could not be computed"


def _build_data_docs(context: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    context.update_data_docs_site(
        "local_site",
        {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(folder),
            },
        },
    )
    context.build_data_docs()
