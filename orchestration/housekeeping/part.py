"""One place that housekeeping looks at."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from orchestration.housekeeping.rules import Found, Key, Rule


class LeftOut(Exception):
    """A place could not be looked at, or not be cleaned to the end; the line says why and what to do."""


class Part(Protocol):
    @property
    def rules(self) -> Mapping[str, Rule]:
        """Of each kind of thing that `find` returns."""

    def held(self) -> AbstractContextManager[Any]:
        """The locks under which nothing can begin to refer to what is found; taken only to delete."""

    def find(self) -> list[Found]:
        """Everything there is, with what refers to it. Raises LeftOut."""

    def remove(self, keys: Sequence[Key]) -> None:
        """In this order. What is gone already is no error. Raises LeftOut."""


def size_and_change(folder: Path) -> tuple[int, float]:
    """Bytes of the files in a folder, and when the newest thing in it was changed; 0 where it has just gone."""
    size, changed = 0, 0.0
    for path in (folder, *folder.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        size += status.st_size if path.is_file() else 0
        changed = max(changed, status.st_mtime, status.st_ctime)
    return size, changed
