"""Great Expectations on a manifest of any length, some rows at a time."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.expectations import Validation, validate
from data_contracts.rules import Contract
from jobs.preparation.contract_frame import validation_frame

ROWS_AT_ONCE = 2**20


def validate_manifest(contract: Contract, manifest: Path, data_docs: Path) -> Validation:
    """Validate the accepted rows; Data Docs of the first ROWS_AT_ONCE go to `data_docs`, others below it.

    That no row comes twice is judged within so many rows; across them it was while reading.
    """
    expectations = 0
    failed: dict[str, str] = {}
    for number, frame in enumerate(_frames(manifest)):
        found = validate(contract, frame, data_docs / f"rows_{number}" if number else data_docs)
        expectations = found.expectations
        failed |= {rule: "; ".join(filter(None, (failed.get(rule), n))) for rule, n in found.failed.items()}
    return Validation(expectations=expectations, failed=dict(sorted(failed.items())))


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
