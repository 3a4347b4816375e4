"""Great Expectations on a manifest of any length, some rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.expectations import validate
from data_contracts.rules import Contract
from jobs.preparation.contract_frame import validation_frame
from jobs.preparation.quarantine import EXAMPLES_PER_RULE, Rejections

ROWS_AT_ONCE = 2**20
QUARANTINED_ROWS_SHOWN = 10_000


@dataclass(kw_only=True)
class ManifestValidation:
    """failed: rule -> how many accepted rows break it; warnings: accepted rows that break a rule which warns."""

    expectations: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    warnings: Rejections = field(default_factory=Rejections)


def validate_manifest(
    contract: Contract, manifest: Path, quarantine: Path, data_docs: Path
) -> ManifestValidation:
    """Validate the accepted rows; Data Docs of the first ROWS_AT_ONCE go to `data_docs`, others below it.

    The Data Docs also show the first QUARANTINED_ROWS_SHOWN rejections, rule by rule. That no row comes
    twice is judged within so many rows; across them it was while reading.
    """
    found = ManifestValidation()
    shown: pd.DataFrame | None = _first_rows(quarantine, QUARANTINED_ROWS_SHOWN)
    for number, frame in enumerate(_frames(manifest)):
        folder = data_docs / f"rows_{number}" if number else data_docs
        part = validate(contract, frame, folder, quarantined=shown)
        shown = None
        found.expectations = part.expectations
        for rule, count in part.failed.items():
            found.failed[rule] = f"{found.failed[rule]}; {count}" if rule in found.failed else count
        _add_warnings(found.warnings, contract, frame)
    found.failed = dict(sorted(found.failed.items()))
    return found


def _add_warnings(found: Rejections, contract: Contract, frame: pd.DataFrame) -> None:
    for rule in contract.warnings:
        rows = frame[rule.broken(frame)]
        if rows.empty:
            continue
        found.rows_of_rule[rule.name] += len(rows[["image_id", "row_id"]].drop_duplicates())
        found.reasons[rule.name] = rule.why
        examples = found.examples.setdefault(rule.name, [])
        for _, row in rows.head(EXAMPLES_PER_RULE - len(examples)).iterrows():
            examples.append(f"{row['source_file']}: {row['row_id']} ({rule.value(row)})")


def _first_rows(path: Path, most: int) -> pd.DataFrame:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=most):
            return batch.to_pandas()
        return file.schema_arrow.empty_table().to_pandas()


def _frames(manifest: Path) -> Iterator[pd.DataFrame]:
    """At least one, which may be empty."""
    with pq.ParquetFile(manifest) as file:
        waiting = [file.schema_arrow.empty_table()]
        for group in range(file.num_row_groups):
            waiting.append(file.read_row_group(group))
            if sum(map(len, waiting)) >= ROWS_AT_ONCE:
                yield validation_frame(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            yield validation_frame(pa.concat_tables(waiting))
