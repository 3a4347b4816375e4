"""The schemas as tables for people: `python -m data_contracts.schema_tables docs/data.md` rewrites them there."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from data_contracts.schemas import (
    MASK_TOKENS_SCHEMA,
    MASKS_SCHEMA,
    QUARANTINE_SCHEMA,
    REFERRING_SCHEMA,
    VQA_SCHEMA,
)

SCHEMAS = (MASKS_SCHEMA, REFERRING_SCHEMA, VQA_SCHEMA, QUARANTINE_SCHEMA, MASK_TOKENS_SCHEMA)


def fields_below(fields: pa.Schema | pa.StructType, prefix: str = "") -> Iterator[tuple[str, pa.Field]]:
    """(path, field) of every field, those of nested records included; a list's items are `name[]`."""
    for field in fields:
        path, inner = prefix + field.name, field
        yield path, field
        while pa.types.is_list(inner.type) or pa.types.is_fixed_size_list(inner.type):
            path, inner = path + "[]", inner.type.value_field
            yield path, inner
        if pa.types.is_struct(inner.type):
            yield from fields_below(inner.type, path + ".")


def field_note(field: pa.Field, key: str) -> str:
    """The field's metadata of that key ("description", "unit"), empty where it has none."""
    return (field.metadata or {}).get(key.encode(), b"").decode()


def name_of(schema: pa.Schema) -> str:
    return schema.metadata[b"schema"].decode()


def markdown(schema: pa.Schema) -> str:
    """One line a field. Items of lists have a line of their own only where they hold no further fields."""
    lines = ["| field | type | unit | meaning |", "| --- | --- | --- | --- |"]
    for path, field in fields_below(schema):
        if path.endswith("[]") and pa.types.is_struct(field.type):
            continue
        kind = _kind(field.type) + (", may be null" if field.nullable and not path.endswith("[]") else "")
        lines.append(
            f"| `{path}` | {kind} | {field_note(field, 'unit')} | {field_note(field, 'description')} |"
        )
    return "\n".join(lines)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "record"
    if pa.types.is_fixed_size_list(kind):
        return f"list of {kind.list_size}"
    return "list" if pa.types.is_list(kind) else str(kind)


def filled(text: str) -> str:
    """The text with what stands between the markers of each schema replaced by its table.

    Raises ValueError where a schema has no markers.
    """
    for schema in SCHEMAS:
        begin, end = f"<!-- schema {name_of(schema)} -->", f"<!-- /schema {name_of(schema)} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the markers {begin} and {end} are needed")
        text = f"{before}{begin}\n{markdown(schema)}\n{end}{after}"
    return text


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(filled(document.read_text()))
