"""A contract as a Great Expectations suite: validated on the accepted rows, shown as Data Docs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_contracts.rules import Contract

# Kind of a declared column -> types of pandas; whole numbers of which some are missing are floats. That text is
# text is a matter of the manifest's Arrow schema: Great Expectations does not know pandas' type of it.
TYPES_OF_KIND = {"int": ("int64", "float64"), "float": ("float64",), "bool": ("bool",)}
# What names a row in Data Docs, of those a frame has.
ID_COLUMNS = ("source_file", "image_id", "row_id", "mask_id", "value")
IDS_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Validation:
    """failed: rule -> how many values break it, or why it could not be computed."""

    expectations: int
    failed: dict[str, str]


def validate(
    contract: Contract, frame: pd.DataFrame, data_docs: Path, quarantined: pd.DataFrame | None = None
) -> Validation:
    """Validate a contract's frame and build Data Docs, which hold times, into an empty folder.

    quarantined: rows of QUARANTINE_SCHEMA, shown in the Data Docs rule by rule.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    expectations = [*_columns(contract), *(rule.expectation() for rule in contract.rules)]
    result = _run(context, f"{contract.name}_accepted", expectations, frame, "SUMMARY")
    if quarantined is not None:
        # Data Docs show ids with complete results only.
        _run(context, f"{contract.name}_quarantined", _none_quarantined(contract), quarantined, "COMPLETE")
    _build_data_docs(context, data_docs)
    only_warn = {rule.name for rule in contract.warnings}
    failed = {
        rule: _failure(outcome)
        for outcome in result.results
        if not outcome.success and (rule := outcome.expectation_config.meta["rule"]) not in only_warn
    }
    return Validation(expectations=len(result.results), failed=dict(sorted(failed.items())))


def _run(context: Any, name: str, expectations: list[Any], frame: pd.DataFrame, result_format: str) -> Any:
    import great_expectations as gx

    asset = context.data_sources.add_pandas(name).add_dataframe_asset("rows")
    definition = gx.ValidationDefinition(
        name=name,
        data=asset.add_batch_definition_whole_dataframe("rows"),
        suite=context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations)),
    )
    ids = [column for column in ID_COLUMNS if column in frame]
    return context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": frame},
        result_format={
            "result_format": result_format,
            "unexpected_index_column_names": ids,
            "partial_unexpected_count": IDS_SHOWN,
        },
    )


def _columns(contract: Contract) -> Iterator[Any]:
    """That the frame has the declared columns, of the declared kinds."""
    from great_expectations import expectations

    yield expectations.ExpectTableColumnsToMatchSet(
        column_set=list(contract.columns), exact_match=False, meta={"rule": "columns"}
    )
    for column, kind in contract.columns.items():
        if kind in TYPES_OF_KIND:
            yield expectations.ExpectColumnValuesToBeInTypeList(
                column=column, type_list=list(TYPES_OF_KIND[kind]), meta={"rule": f"type_of_{column}"}
            )


def _none_quarantined(contract: Contract) -> list[Any]:
    """That no row was quarantined for a rule: where one was, Data Docs show how many, which and why."""
    from great_expectations import expectations

    return [
        expectations.ExpectColumnValuesToNotBeInSet(
            column="rule",
            value_set=[rule.name],
            description=f"{rule.name}: {rule.why}",
            meta={"rule": rule.name},
        )
        for rule in contract.rules
        if rule.breach != "warning"
    ]


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
