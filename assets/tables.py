"""Stages whose result is a table: its files, its columns, and the columns that they are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from data_contracts.schema_tables import field_note, fields_below
from data_contracts.schemas import MASK_TOKENS_SCHEMA, MASKS_SCHEMA, REFERRING_SCHEMA
from jobs.benchmarking.results import SAMPLES_FILE, SAMPLES_SCHEMA
from jobs.benchmarking.vqa_results import VQA_SAMPLES_FILE

SHARDS = "shard-*.parquet"


@dataclass(frozen=True, kw_only=True)
class Table:
    """files: patterns; those of the first that any file has are the table.

    made_from: column -> (stage, column there); columns as `fields_below` writes them.
    """

    files: tuple[str, ...]
    schema: pa.Schema
    made_from: Mapping[str, tuple[str, str]] = field(default_factory=dict)


TABLES = {
    "prepare_sa1b": Table(files=(SHARDS,), schema=MASKS_SCHEMA),
    "prepare_referring": Table(files=(SHARDS,), schema=REFERRING_SCHEMA),
    "prepare_benchmark": Table(files=(SHARDS,), schema=REFERRING_SCHEMA),  # of questions: see the partition
    "mask_tokens": Table(
        files=("*.parquet",),
        schema=MASK_TOKENS_SCHEMA,
        made_from={
            "dataset": ("prepare_referring", "source"),
            "image_id": ("prepare_referring", "image_id"),
            "record_id": ("prepare_referring", "records[].record_id"),
            "codes": ("prepare_referring", "records[].counts"),
            "length": ("prepare_referring", "records[].counts"),
        },
    ),
    "benchmark": Table(
        files=(SAMPLES_FILE, VQA_SAMPLES_FILE),
        schema=SAMPLES_SCHEMA,
        made_from={
            "image_id": ("prepare_benchmark", "image_id"),
            "record_id": ("prepare_benchmark", "records[].record_id"),
            "expression": ("prepare_benchmark", "records[].expressions"),
            "no_target": ("prepare_benchmark", "records[].no_target"),
            "target_counts": ("prepare_benchmark", "records[].counts"),
            "ignore_counts": ("prepare_benchmark", "records[].ignore"),
        },
    ),
}


def definition_metadata(stage: str) -> dict[str, Any]:
    """Columns as the job is to write them; nothing for a stage without a table."""
    table = TABLES.get(stage)
    return {} if table is None else _columns(table.schema, table.made_from)


def table_metadata(stage: str, folder: Path, partition: str | None) -> dict[str, Any]:
    """Columns and rows as the files have them; nothing where there are none."""
    table = TABLES.get(stage)
    found = [sorted(folder.glob(pattern)) for pattern in table.files] if table else []
    files = next(filter(None, found), None)
    if table is None or files is None:
        return {}
    import pyarrow.parquet as pq

    rows = sum(pq.read_metadata(file).num_rows for file in files)
    count = "dagster/row_count" if partition is None else "dagster/partition_row_count"
    return {count: rows, **_columns(pq.read_schema(files[0]), table.made_from)}


def _columns(schema: pa.Schema, made_from: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    columns = [
        dg.TableColumn(
            path,
            _type_name(one.type),
            field_note(one, "description"),
            dg.TableColumnConstraints(nullable=one.nullable),
            {"unit": unit} if (unit := field_note(one, "unit")) else {},
        )
        for path, one in fields_below(schema)
        if not path.endswith("[]")
    ]
    names = {column.name for column in columns}
    lineage = {
        name: [dg.TableColumnDep(dg.AssetKey(stage), column)]
        for name, (stage, column) in made_from.items()
        if name in names
    }
    metadata: dict[str, Any] = {"dagster/column_schema": dg.TableSchema(columns)}
    return metadata | ({"dagster/column_lineage": dg.TableColumnLineage(lineage)} if lineage else {})


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "record"
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list of {_type_name(kind.value_type)}"
    return str(kind)
