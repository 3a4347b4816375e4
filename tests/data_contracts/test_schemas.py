"""Schemas say what their fields mean, in the files and in the documentation."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.schema_tables import SCHEMAS, field_note, fields_below, filled, name_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"
WITHOUT_UNIT = {pa.string(), pa.bool_(), pa.binary()}


@pytest.mark.parametrize("schema", SCHEMAS, ids=name_of)
def test_every_field_says_what_it_means(schema: pa.Schema) -> None:
    fields = dict(fields_below(schema))
    assert [path for path, field in fields.items() if not field_note(field, "description")] == []
    numbers = [path for path, field in fields.items() if not pa.types.is_nested(field.type)]
    numbers = [path for path in numbers if fields[path].type not in WITHOUT_UNIT]
    assert [path for path in numbers if not field_note(fields[path], "unit")] == []


@pytest.mark.parametrize("schema", SCHEMAS, ids=name_of)
def test_a_file_carries_the_meaning_of_its_fields(schema: pa.Schema) -> None:
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    stored = pq.read_schema(file)
    assert stored.metadata == schema.metadata
    notes = [(path, field_note(field, "description")) for path, field in fields_below(stored)]
    assert notes == [(path, field_note(field, "description")) for path, field in fields_below(schema)]


def test_the_documentation_shows_the_schemas_as_they_are() -> None:
    text = DOCUMENT.read_text()
    assert filled(text) == text, "run python -m data_contracts.schema_tables docs/data.md"
