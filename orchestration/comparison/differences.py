"""What two versions were made of differs in: parameters, data, code. Comparing changes nothing and measures nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from orchestration.comparison.versions import Version

ValueT = TypeVar("ValueT")
RowCount = Callable[[str, str], int | None]
"""Address and data version -> accepted rows, None where that is not known."""


@dataclass(frozen=True, kw_only=True)
class ParameterChange:
    """Values as YAML would say them; None where there is no such parameter."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class DataChange:
    """An output that differs. Versions are None where it was not made; rows, where nobody counts or knows them."""

    address: str
    before: str | None
    after: str | None
    rows_before: int | None
    rows_after: int | None


@dataclass(frozen=True, kw_only=True)
class CodeChange:
    """A declared code file or folder that differs. stages: that read it."""

    path: str
    stages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Differences:
    """unknown: why data and code are not compared; empty where they are."""

    parameters: tuple[ParameterChange, ...]
    data: tuple[DataChange, ...]
    code: tuple[CodeChange, ...]
    unknown: str

    @property
    def none(self) -> bool:
        return not (self.parameters or self.data or self.code or self.unknown)


def find_differences(before: Version, after: Version, rows: RowCount) -> Differences:
    """An output that only one ledger has is told as missing in the other."""
    without = [side.name for side in (before, after) if not side.has_ledger]
    unknown = ""
    if without:
        unknown = (
            f"no ledger is kept with {' and '.join(without)}, so data and code are not compared; `alto sync` keeps one"
            " with the versions that are recorded"
        )
    parameters = [
        ParameterChange(name=name, before=_said(old), after=_said(new))
        for name, old, new in _changed(before.parameters, after.parameters)
    ]
    data = [
        DataChange(
            address=address,
            before=old,
            after=new,
            rows_before=None if old is None else rows(address, old),
            rows_after=None if new is None else rows(address, new),
        )
        for address, old, new in _changed(_data_versions(before), _data_versions(after))
        if not unknown
    ]
    return Differences(
        parameters=tuple(parameters),
        data=tuple(data),
        code=tuple(_code_changes(before, after)),
        unknown=unknown,
    )


def _data_versions(version: Version) -> dict[str, str]:
    return {address: entry.data_version for address, entry in version.entries.items()}


def _code_changes(before: Version, after: Version) -> list[CodeChange]:
    stages: dict[str, set[str]] = {}
    for address in before.entries.keys() & after.entries.keys():
        for path, _, _ in _changed(before.entries[address].code, after.entries[address].code):
            stages.setdefault(path, set()).add(address.partition("@")[0])
    return [CodeChange(path=path, stages=tuple(sorted(stages[path]))) for path in sorted(stages)]


def _changed(
    before: Mapping[str, ValueT], after: Mapping[str, ValueT]
) -> list[tuple[str, ValueT | None, ValueT | None]]:
    """Keys whose values differ or that one side lacks, in the order of the first side, then of the other."""
    keys = dict.fromkeys([*before, *after])
    return [
        (key, before.get(key), after.get(key))
        for key in keys
        if key not in before or key not in after or before[key] != after[key]
    ]


def _said(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)
