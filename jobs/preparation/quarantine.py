"""Rejected rows: written with their reason, counted by rule."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.schemas import QUARANTINE_SCHEMA
from jobs.preparation.contract_frame import Verdict

EXAMPLES_PER_RULE = 5


def rejections(verdicts: Sequence[Verdict], kind: str) -> pa.Table:
    """Rows of QUARANTINE_SCHEMA for the rejected rows of an image; those whose rule blames the image make one.

    kind: what a row is, "mask" or "record".
    """
    rejected = [verdict for verdict in verdicts if verdict.rule is not None]
    return pa.Table.from_pylist(list(_entries(rejected, kind)), schema=QUARANTINE_SCHEMA)


def _entries(rejected: list[Verdict], kind: str) -> Iterator[dict[str, Any]]:
    for blames_image, group in groupby(rejected, lambda v: v.rule is not None and v.rule.blames == "image"):
        verdicts = list(group)
        if blames_image:
            first = verdicts[0]
            yield _entry(first, "image", first.image.raw.image_id, len(verdicts))
        else:
            yield from (_entry(verdict, kind, verdict.row.raw.row_id, 1) for verdict in verdicts)


def _entry(verdict: Verdict, kind: str, row_id: str, rows: int) -> dict[str, Any]:
    assert verdict.rule is not None
    return {
        "kind": kind,
        "source_file": verdict.image.raw.source_file,
        "row_id": row_id,
        "image_id": verdict.image.raw.image_id,
        "rule": verdict.rule.name,
        "value": verdict.value,
        "reason": verdict.rule.why,
        "rows": rows,
    }


@dataclass(frozen=True, kw_only=True)
class Rejections:
    """rows_of_rule: rows rejected; examples: rule -> the first rejected ids; reasons: why a rule exists."""

    rows_of_rule: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows rejected."""
        return self.rows_of_rule.total()


def read_rejections(path: Path) -> Rejections:
    """What a quarantine file holds, read a few rows at a time."""
    found = Rejections()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for entry in batch.to_pylist():
                rule = entry["rule"]
                found.rows_of_rule[rule] += entry["rows"]
                found.reasons.setdefault(rule, entry["reason"])
                examples = found.examples.setdefault(rule, [])
                if len(examples) < EXAMPLES_PER_RULE:
                    examples.append(f"{entry['source_file']}: {entry['row_id']} ({entry['value']})")
    return found
