"""Lines are found again where they were, whatever lies between them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import InputError
from jobs.formats import json_lines
from jobs.formats.json_lines import index_lines
from jobs.formats.raw import ProblemError

RIGHT = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3).map(
    lambda row: json.dumps(row).encode()
)
LINES = st.lists(RIGHT | st.sampled_from([b"", b"  ", b"\xff\xfe", b"{broken"]), max_size=8)


@settings(max_examples=60, deadline=None)
@given(lines=LINES, ending=st.sampled_from([b"\n", b"\r\n"]), ends=st.booleans())
def test_lines_are_those_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ending: bytes, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(ending.join(lines) + (ending if ends else b""))
    found = list(index_lines(path))
    assert [line.number for line, _ in found] == [n for n, data in enumerate(lines, 1) if data.strip()]
    for line, content in found:
        data = lines[line.number - 1]
        if data.startswith(b"{") and data != b"{broken":
            assert line.read() == content == json.loads(data)
        else:
            assert content is None
            with pytest.raises(ProblemError, match="line_readable"):
                line.read()


def test_a_line_without_end_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 1000 + b'"}\n{"a": 3}')
    first, long, last = index_lines(path)
    assert (first[1], last[1]) == ({"a": 1}, {"a": 3})
    assert last[0].read() == {"a": 3}
    with pytest.raises(ProblemError, match="line 2 has 1010 bytes"):
        long[0].read()


def test_a_file_that_vanishes_while_it_is_read_costs_the_rest_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    ((line, _),) = index_lines(path)
    path.unlink()
    with pytest.raises(ProblemError, match="line_readable: a.jsonl: No such file"):
        line.read()


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [folder, pipe, nothing])
def test_what_is_no_file_is_named(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=r"a.jsonl: no such file"):
        list(index_lines(tmp_path / "a.jsonl"))
