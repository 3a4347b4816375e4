"""Rules a data set declares: each is checked on rows to quarantine them, and becomes an expectation.

A rule works on a pandas frame with one row per mask (`data_contracts.masks` lists the columns). Missing
values break no rule but `Present`, so that optional fields stay optional.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

if TYPE_CHECKING:
    from great_expectations.expectations import Expectation

Blames = Literal["row", "image"]
Breach = Literal["damage", "exclusion", "warning"]


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """name: what holds; why: the reason it must; blames: what is quarantined, the row or its whole image.

    breach: what a row that breaks it is. "damage" is quarantined, and too much of it fails the data set;
    "exclusion" is right data in the wrong place, quarantined without limit; a "warning" stays and is named.
    """

    name: str
    why: str
    blames: Blames = "row"
    breach: Breach = "damage"

    @abstractmethod
    def broken(self, frame: pd.DataFrame) -> pd.Series:
        """Boolean column: which rows break the rule."""

    @abstractmethod
    def value(self, row: pd.Series) -> str:
        """The value that broke it, for people."""

    @abstractmethod
    def expectation(self) -> "Expectation":
        """The same rule for Great Expectations."""


def _labels(rule: Rule) -> dict[str, Any]:
    """What ties an expectation to its rule; the notes are shown in Data Docs."""
    severity = "warning" if rule.breach == "warning" else "critical"
    return {"meta": {"rule": rule.name}, "notes": rule.why, "severity": severity}


@dataclass(frozen=True, kw_only=True)
class Readable(Rule):
    """The reader, or the measuring of a mask, met no problem of this name."""

    def broken(self, frame: pd.DataFrame) -> pd.Series:
        return frame["problem_rule"] == self.name

    def value(self, row: pd.Series) -> str:
        return str(row["problem"])

    def expectation(self) -> "Expectation":
        from great_expectations import expectations

        return expectations.ExpectColumnValuesToNotBeInSet(
            column="problem_rule", value_set=[self.name], **_labels(self)
        )


@dataclass(frozen=True, kw_only=True)
class Present(Rule):
    """A value is there."""

    column: str

    def broken(self, frame: pd.DataFrame) -> pd.Series:
        return frame[self.column].isna()

    def value(self, row: pd.Series) -> str:
        return f"no {self.column}"

    def expectation(self) -> "Expectation":
        from great_expectations import expectations

        return expectations.ExpectColumnValuesToNotBeNull(column=self.column, **_labels(self))


@dataclass(frozen=True, kw_only=True)
class Absent(Rule):
    """A column that would hold what is wrong is empty."""

    column: str

    def broken(self, frame: pd.DataFrame) -> pd.Series:
        return frame[self.column].notna()

    def value(self, row: pd.Series) -> str:
        return str(row[self.column])

    def expectation(self) -> "Expectation":
        from great_expectations import expectations

        return expectations.ExpectColumnValuesToBeNull(column=self.column, **_labels(self))


@dataclass(frozen=True, kw_only=True)
class Between(Rule):
    """A number lies in a range; None: no bound."""

    column: str
    least: float | None = None
    most: float | None = None

    def broken(self, frame: pd.DataFrame) -> pd.Series:
        column = frame[self.column]
        below = column < self.least if self.least is not None else pd.Series(False, frame.index)
        above = column > self.most if self.most is not None else pd.Series(False, frame.index)
        return below | above

    def value(self, row: pd.Series) -> str:
        return f"{self.column} {row[self.column]:g}"

    def expectation(self) -> "Expectation":
        from great_expectations import expectations

        return expectations.ExpectColumnValuesToBeBetween(
            column=self.column, min_value=self.least, max_value=self.most, **_labels(self)
        )


@dataclass(frozen=True, kw_only=True)
class Equal(Rule):
    """Two columns agree."""

    column: str
    other: str

    def broken(self, frame: pd.DataFrame) -> pd.Series:
        left, right = frame[self.column], frame[self.other]
        return (left != right) & left.notna() & right.notna()

    def value(self, row: pd.Series) -> str:
        return f"{self.column} {row[self.column]:g}, {self.other} {row[self.other]:g}"

    def expectation(self) -> "Expectation":
        from great_expectations import expectations

        return expectations.ExpectColumnPairValuesToBeEqual(
            column_A=self.column,
            column_B=self.other,
            ignore_row_if="either_value_is_missing",
            **_labels(self),
        )


@dataclass(frozen=True, kw_only=True)
class AtMost(Rule):
    """One column is not above another."""

    column: str
    limit: str

    def broken(self, frame: pd.DataFrame) -> pd.Series:
        return frame[self.column] > frame[self.limit]

    def value(self, row: pd.Series) -> str:
        return f"{self.column} {row[self.column]:g} above {self.limit} {row[self.limit]:g}"

    def expectation(self) -> "Expectation":
        from great_expectations import expectations

        return expectations.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=self.limit,
            column_B=self.column,
            or_equal=True,
            ignore_row_if="either_value_is_missing",
            **_labels(self),
        )


@dataclass(frozen=True, kw_only=True)
class Unique(Rule):
    """No two rows share these columns; `repeated` says which came again while reading."""

    columns: tuple[str, ...]
    repeated: str

    def broken(self, frame: pd.DataFrame) -> pd.Series:
        return frame[self.repeated]

    def value(self, row: pd.Series) -> str:
        return ", ".join(f"{column} {row[column]}" for column in self.columns) + " again"

    def expectation(self) -> "Expectation":
        from great_expectations import expectations

        if len(self.columns) == 1:
            return expectations.ExpectColumnValuesToBeUnique(column=self.columns[0], **_labels(self))
        return expectations.ExpectCompoundColumnsToBeUnique(column_list=list(self.columns), **_labels(self))


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a publisher states areas and boxes, and so how far its claims may be from the runs.

    box_shortfall: pixels by which width and height are stated short.
    box_tolerance: pixels by which an edge of the box of a run-length mask may be off.
    outline_box_tolerance: the same for masks given as polygons.
    outline_area_tolerance: share of its boundary length by which the area of a polygon may be off; that of
    a run-length mask is exact.
    """

    box_shortfall: int = 0
    box_tolerance: float = 0.0
    outline_box_tolerance: float = 0.0
    outline_area_tolerance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a data set must satisfy.

    columns: of the frame it is checked on, name -> kind. rules: in the order of checking; of those whose
    breach quarantines, the first broken one counts.
    """

    name: str
    rules: tuple[Rule, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    convention: Convention = Convention()

    @property
    def warnings(self) -> tuple[Rule, ...]:
        """Rules that rows may break and stay."""
        return tuple(rule for rule in self.rules if rule.breach == "warning")

    def __getitem__(self, name: str) -> Rule:
        return next(rule for rule in self.rules if rule.name == name)

    def first_broken(self, frame: pd.DataFrame) -> pd.Series:
        """Name of the first rule each row breaks, missing where it breaks none but warnings.

        Raises KeyError where a row's problem has a name the contract does not declare, so that no
        problem is accepted for want of a rule.
        """
        first = pd.Series(None, frame.index, dtype=object)
        for rule in reversed(self.rules):
            if rule.breach != "warning":
                first[rule.broken(frame).fillna(False).astype(bool)] = rule.name
        undeclared = set(frame["problem_rule"].dropna()) - {rule.name for rule in self.rules}
        if undeclared:
            raise KeyError(f"contract {self.name} declares no rule {', '.join(sorted(undeclared))}")
        return first
