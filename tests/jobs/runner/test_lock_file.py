"""One entry of `dvc.lock` written alone gives the file that DVC itself would write; it is parsed once."""

import json
from datetime import date
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml, parse_yaml

from jobs.runner.lock_file import ParsedLock, with_entry

LONG = "a text that is so long that it is folded: " + "word " * 60
ENTRY = {
    "cmd": "python -m jobs.prepare_sa1b --partition batch_001",
    "deps": [{"path": "data/a b", "hash": "md5", "md5": "00" * 16, "size": 3}],
    "params": {"params.yaml": {"seed": 1, "rate": 1e-05, "nothing": None, "text": LONG, "lines": "a\n\nb\n"}},
    "outs": [{"path": "data/out", "hash": "md5", "md5": "11" * 16 + ".dir", "nfiles": 2}],
}
OTHERS = {
    "tokenizer_stage1": ENTRY | {"cmd": "one"},
    "prepare_sa1b@batch_001": ENTRY | {"cmd": "old"},
    "prepare_sa1b@batch_0011": ENTRY | {"cmd": "two"},
    "grpo_sweep@0.02": ENTRY | {"cmd": "three"},
}


@pytest.mark.parametrize("name", [*OTHERS, "new", "prepare_sa1b@batch_00", "grpo_sweep@0.0"])
@pytest.mark.parametrize("rest", [{}, {"datasets": [{"name": "d", "type": "url"}]}], ids=["", "datasets"])
def test_file_is_the_one_that_dvc_writes(name: str, rest: dict) -> None:
    before = {"schema": "2.0", "stages": OTHERS, **rest}
    after = {"schema": "2.0", "stages": {**OTHERS, name: ENTRY}, **rest}
    assert with_entry(printed(before), name, ENTRY) == printed(after)


@pytest.mark.parametrize("before", ["", "schema: '2.0'\n", "schema: '2.0'\nstages: {}\n"])
def test_first_entry(before: str) -> None:
    text = with_entry(before, "new", ENTRY)
    assert parse_yaml(text, "dvc.lock") == {"schema": "2.0", "stages": {"new": ENTRY}}


def printed(content: dict) -> str:
    """As DVC writes it, without anchors for what is the same object here."""
    return dumps_yaml(json.loads(json.dumps(content)))


class Loader:
    def __init__(self, content: dict) -> None:
        self.content, self.calls = content, 0

    def __call__(self) -> dict:
        self.calls += 1
        return self.content


def test_parsed_once_for_each_text(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text("first")
    loader = Loader({"stages": {"a": ENTRY}})
    assert [ParsedLock(lock, tmp_path).content(loader) for _ in range(2)] == [loader.content] * 2
    assert loader.calls == 1
    lock.write_text("second")
    loader.content = {"stages": {"b": ENTRY}}
    assert ParsedLock(lock, tmp_path).content(loader) == loader.content
    assert loader.calls == 2


@pytest.mark.parametrize("value", [{1: "a number for a key"}, date(2026, 1, 1)], ids=["number", "date"])
def test_what_json_cannot_hold_is_parsed_again(tmp_path: Path, value: object) -> None:
    loader = Loader({"stages": {"a": {"params": {"params.yaml": {"x": value}}}}})
    for _ in range(2):
        assert ParsedLock(tmp_path / "dvc.lock", tmp_path).content(loader) == loader.content
    assert loader.calls == 2


def test_half_written_copy_is_no_copy(tmp_path: Path) -> None:
    loader = Loader({"stages": {"a": ENTRY}})
    ParsedLock(tmp_path / "dvc.lock", tmp_path).content(loader)
    (kept,) = tmp_path.iterdir()
    kept.write_text(kept.read_text()[:-9])
    assert ParsedLock(tmp_path / "dvc.lock", tmp_path).content(loader) == loader.content
    assert loader.calls == 2
