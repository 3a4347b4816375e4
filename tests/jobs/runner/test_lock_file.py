"""One entry of `dvc.lock` written alone gives the file that DVC itself would write."""

import json

import pytest
from dvc.utils.serialize import dumps_yaml, parse_yaml

from jobs.runner.lock_file import with_entry

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
