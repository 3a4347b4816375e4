"""Rejected rows: written with their reason, counted by rule."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.schemas import QUARANTINE_SCHEMA
from jobs.preparation.contract_frame import Verdict

EXAMPLES_PER_RULE = 5


class Quarantine:
    """Collects rejections. kind: what a row is, "mask" or "record"."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: list[dict[str, Any]] = []
        self.rows_of_rule: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        """Rows rejected."""
        return self.rows_of_rule.total()

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Keep the rejected rows of an image; those whose rule blames the image make one entry."""
        for entry in self._entries_of([verdict for verdict in verdicts if verdict.rule is not None]):
            self._entries.append(entry)
            self.rows_of_rule[entry["rule"]] += entry["rows"]

    def _entries_of(self, rejected: list[Verdict]) -> Iterator[dict[str, Any]]:
        for blames_image, group in groupby(
            rejected, lambda v: v.rule is not None and v.rule.blames == "image"
        ):
            verdicts = list(group)
            if blames_image:
                first = verdicts[0]
                yield self._entry(first, "image", first.image.raw.image_id, len(verdicts))
            else:
                yield from (self._entry(v, self._kind, v.row.raw.row_id, 1) for v in verdicts)

    def _entry(self, verdict: Verdict, kind: str, row_id: str, rows: int) -> dict[str, Any]:
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

    def examples(self) -> dict[str, list[str]]:
        """Rule -> the first rejected ids."""
        examples: dict[str, list[str]] = {rule: [] for rule in sorted(self.rows_of_rule)}
        for entry in self._entries:
            if len(examples[entry["rule"]]) < EXAMPLES_PER_RULE:
                examples[entry["rule"]].append(
                    f"{entry['source_file']}: {entry['row_id']} ({entry['value']})"
                )
        return examples

    def write(self, path: Path) -> None:
        pq.write_table(pa.Table.from_pylist(self._entries, schema=QUARANTINE_SCHEMA), path)
