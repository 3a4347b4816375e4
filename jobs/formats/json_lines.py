"""JSON-lines files of any size: gone through once to learn what lies where, then read line by line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_contracts.errors import InputError
from jobs.formats.raw import ProblemError, is_file, parse_json

MAX_LINE_BYTES = 16 * 2**20
RULE = "line_readable"


class Line(NamedTuple):
    """number: from 1, blank lines counted. start, size: bytes."""

    path: Path
    number: int
    start: int
    size: int

    def read(self) -> Any:
        """The line's JSON. Raises ProblemError "line_readable"."""
        if self.size > MAX_LINE_BYTES:
            raise ProblemError(RULE, f"line {self.number} has {self.size} bytes")
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                return parse_json(file.read(self.size), RULE)
        except OSError as error:
            raise ProblemError(RULE, f"{self.path.name}: {error.strerror or error}") from None


def index_lines(path: Path) -> Iterator[tuple[Line, Any]]:
    """All lines that are not blank, each with its JSON, None where it cannot be read.

    Raises InputError where the file cannot be read.
    """
    if not is_file(path):
        raise InputError(f"{path}: no such file; the data set is incomplete")
    try:
        with path.open("rb") as file:
            number = start = 0
            while data := file.readline(MAX_LINE_BYTES):
                number, size, piece = number + 1, len(data), data
                while not piece.endswith(b"\n") and (piece := file.readline(MAX_LINE_BYTES)):
                    size += len(piece)
                if data.strip():
                    yield Line(path, number, start, size), _json_of(data)
                start += size
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; the data set is incomplete") from None


def _json_of(data: bytes) -> Any:
    try:
        return parse_json(data, RULE)
    except ProblemError:
        return None
