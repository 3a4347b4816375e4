"""Which part of an acquired folder is read, where it holds more than one data set or split."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_contracts.errors import InputError

AnyRow = TypeVar("AnyRow")
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Selection:
    """annotations: name of the file (or folder) of annotations, None where the folder holds one only.
    splits: the publisher's splits that are read, None for all."""

    annotations: str | None = None
    splits: tuple[str, ...] | None = None

    def one_of(self, candidates: Sequence[Path], folder: Path, wanted: str) -> Path:
        """The named candidate, or the only one. wanted: what they are, for the InputError otherwise."""
        names = ", ".join(path.name for path in candidates[:SHOWN]) or "none"
        if self.annotations is None:
            if len(candidates) == 1:
                return candidates[0]
            choose = "; name one in `annotations`" if candidates else ""
            raise InputError(f"{folder}: {len(candidates)} {wanted} ({names}), one expected{choose}")
        for path in candidates:
            if path.name == self.annotations:
                return path
        raise InputError(f"{folder}: no {self.annotations!r} among its {wanted} ({names}); see `annotations`")

    def rows_of_splits(
        self, rows: Iterable[tuple[str | None, AnyRow]], folder: Path
    ) -> tuple[list[AnyRow], int]:
        """Rows of the chosen splits, and the number of all others.

        rows: (split, row). A row whose split cannot be read (None) may be of any, so it is kept, to be
        judged. Raises InputError where a chosen split has no row.
        """
        found = list(rows)
        if self.splits is None:
            return [row for _, row in found], 0
        rows_of = Counter(split for split, _ in found if split is not None)
        for split in self.splits:
            if not rows_of[split]:
                known = ", ".join(sorted(rows_of)[:SHOWN]) or "none"
                raise InputError(f"{folder}: no row of split {split!r}, see `splits`; it has {known}")
        kept = [row for split, row in found if split is None or split in self.splits]
        return kept, len(found) - len(kept)

    def refuse(self, folder: Path, format_name: str, *choices: str) -> None:
        """Raises InputError where one of these choices is made, which a format does not have."""
        for name in choices:
            if getattr(self, name) is not None:
                raise InputError(f"{folder}: format {format_name!r} has no `{name}` to choose; drop it")


WHOLE = Selection()
