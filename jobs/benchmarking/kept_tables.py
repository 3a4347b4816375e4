"""Tables that a killed run leaves behind for the next one with the same inputs."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def kept_table(path: Path, schema: pa.Schema, make: Callable[[], pa.Table]) -> pa.Table:
    """The table in the file; where there is none, `make` makes it, and the file appears whole."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        pq.write_table(make(), partial)
        os.replace(partial, path)
    return pq.read_table(path, schema=schema)
