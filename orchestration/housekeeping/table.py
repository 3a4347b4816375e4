"""What housekeeping found and did, for people and for programs."""

from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, computed_field

from orchestration.housekeeping.rules import Verdict

COLUMNS = ("what", "verdict", "number", "size", "why")
UNITS = ("B", "kB", "MB", "GB", "TB")


class Line(BaseModel):
    """Things of one kind with one verdict. bytes: None where they are not known."""

    model_config = ConfigDict(frozen=True)

    kind: str
    removed: bool
    why: str
    number: int
    bytes: int | None
    names: tuple[str, ...]


class HousekeepingTable(BaseModel):
    """deleted: whether what is called removed is gone, or would go. left_out: what could not be looked at or deleted,
    and why, a line each."""

    model_config = ConfigDict(frozen=True)

    deleted: bool
    lines: tuple[Line, ...]
    left_out: tuple[str, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def removed_number(self) -> int:
        return sum(line.number for line in self.lines if line.removed)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def removed_bytes(self) -> int:
        return sum(line.bytes or 0 for line in self.lines if line.removed)

    @property
    def summary(self) -> str:
        did = "deleted" if self.deleted else "to delete"
        return f"{did}: {self.removed_number} things, {readable(self.removed_bytes)}"


def lines_of(verdicts: Sequence[Verdict]) -> list[Line]:
    """One for each kind and reason, in the order of the kinds, what is removed first."""
    groups: dict[tuple[str, bool, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        # That many things are each referred to by another one is one reason.
        referred_to = not verdict.removed and verdict.why.endswith(" refers to it")
        why = "something that is kept refers to it" if referred_to else verdict.why
        groups[verdict.found.key.kind, not verdict.removed, why].append(verdict)
    return [
        Line(
            kind=kind,
            removed=not kept,
            why=why,
            number=len(members),
            bytes=_sum([one.found.bytes for one in members]),
            names=tuple(sorted(one.found.key.name for one in members)),
        )
        for (kind, kept, why), members in sorted(groups.items())
    ]


def text_table(table: HousekeepingTable, *, verbose: bool = False) -> str:
    """verbose: with the name of each thing."""
    rows = [COLUMNS, *_rows(table)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if verbose:
        for line in table.lines:
            word = _word(table, line)
            lines += [f"{word:8} {line.kind}: {name} ({line.why})" for name in line.names]
    lines += ["", table.summary, *(f"left out: {one}" for one in table.left_out)]
    if not table.deleted and table.removed_number:
        lines.append("`alto housekeeping --delete` deletes it")
    return "\n".join(lines)


def markdown_table(table: HousekeepingTable) -> str:
    rows = [COLUMNS, ("---",) * len(COLUMNS), *_rows(table)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rows(table: HousekeepingTable) -> list[tuple[str, ...]]:
    return [
        (line.kind, _word(table, line), str(line.number), readable(line.bytes), line.why)
        for line in table.lines
    ]


def _word(table: HousekeepingTable, line: Line) -> str:
    if not line.removed:
        return "kept"
    return "deleted" if table.deleted else "delete"


def _sum(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def readable(size: int | None) -> str:
    """A number of bytes in the largest unit (of 1000) that leaves one digit before the point."""
    if size is None:
        return "–"
    value = float(size)
    for unit in UNITS[:-1]:
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} {UNITS[-1]}"
