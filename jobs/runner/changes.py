"""What is not as recorded, one change each: which parameter from what to what, which file, which input."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dvc.dependency.param import ParamsDependency

from jobs.runner.lineage import code_files

Kind = Literal["never_run", "command", "parameter", "code", "input", "output"]
LONGEST_VALUE = 40  # characters of a parameter's value that are shown


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference between a record and what is here.

    subject: dotted parameter, path of a code file or output, or address of an input (its stage alone, where it is not
        known which partition). before, after: of a parameter, its values; else `after` says in words what happened.
    """

    kind: Kind
    subject: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        if self.kind == "parameter":
            return f"{self.subject}: {_shown(self.before)} → {_shown(self.after)}"
        return f"{self.subject} {self.after}"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def parameter_changes(dependency: ParamsDependency, now: Mapping[str, Any]) -> Iterator[Change]:
    """Leaves of the tracked parameters that differ from those recorded."""
    recorded = dependency.hash_info.value or {}
    prefix = "" if dependency.def_path == "params.yaml" else f"{dependency.def_path}:"
    for key in dependency.params:
        for name, before, after in _leaves(key, recorded.get(key), now.get(key)):
            yield Change(kind="parameter", subject=prefix + name, before=before, after=after)


def _leaves(key: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _leaves(f"{key}.{name}", before.get(name), after.get(name))
    elif before != after:
        yield key, before, after


def version_changes(kind: Kind, before: Mapping[str, str], now: Mapping[str, str | None]) -> Iterator[Change]:
    """Of the parts of one dependency (files of code, partitions), name -> version. None or no entry: it is missing."""
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            what = "is missing" if now.get(name) is None else "changed" if name in before else "is new"
            yield Change(kind=kind, subject=name, after=what)


def code_versions(root: Path, path: str) -> dict[str, str]:
    """File of a code dependency, relative to the root -> MD5; empty where it is missing."""
    return {
        file.relative_to(root).as_posix(): hashlib.md5(file.read_bytes()).hexdigest()
        for file in code_files(root / path)
    }
