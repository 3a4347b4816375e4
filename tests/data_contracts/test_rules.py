"""One declaration, two uses: what a rule quarantines is what its expectation reports."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.expectations import validate
from data_contracts.masks import SA1B_CONTRACT
from data_contracts.referring import REFERRING_COLUMNS, REFERRING_CONTRACT
from data_contracts.rules import Absent, AtMost, Between, Contract, Equal, Present, Readable, Unique

RULES = {
    "read": Readable(name="read", why="w"),
    "there": Present(name="there", why="w", column="a"),
    "range": Between(name="range", why="w", column="a", least=0, most=1),
    "least": Between(name="least", why="w", column="b", least=0),
    "same": Equal(name="same", why="w", column="a", other="b"),
    "below": AtMost(name="below", why="w", column="a", limit="b"),
    "empty": Absent(name="empty", why="w", column="wrong"),
    "once": Unique(name="once", why="w", columns=("id", "part"), repeated="repeated"),
}


def frame(**columns: Any) -> pd.DataFrame:
    rows = max((len(values) for values in columns.values()), default=1)
    whole = {
        "a": [0.5] * rows,
        "b": [0.5] * rows,
        "id": [str(number) for number in range(rows)],
        "part": ["x"] * rows,
        "wrong": [None] * rows,
        "repeated": [False] * rows,
        "problem_rule": [None] * rows,
        "problem": [None] * rows,
    }
    return pd.DataFrame(whole | columns).astype({"problem_rule": object, "wrong": object})


CASES: list[tuple[str, dict[str, Any], list[bool]]] = [
    ("read", {"problem_rule": [None, "read", "other"]}, [False, True, False]),
    ("there", {"a": [0.0, np.nan]}, [False, True]),
    ("range", {"a": [0.0, 1.0, -0.01, 1.01, np.nan]}, [False, False, True, True, False]),
    ("least", {"b": [0.0, -1.0, 1e9, np.nan]}, [False, True, False, False]),
    ("same", {"a": [1.0, 1.0, np.nan, 2.0], "b": [1.0, 2.0, 2.0, np.nan]}, [False, True, False, False]),
    ("empty", {"wrong": [None, "id 2", None]}, [False, True, False]),
    ("below", {"a": [1.0, 2.1, np.nan, 2.0], "b": [1.0, 2.0, 2.0, np.nan]}, [False, True, False, False]),
]


@pytest.mark.parametrize(("name", "columns", "broken"), CASES)
def test_a_rule_marks_the_rows_that_break_it(name: str, columns: dict[str, Any], broken: list[bool]) -> None:
    data = frame(**columns)
    rule = RULES[name]
    assert rule.broken(data).tolist() == broken
    assert rule.value(data.iloc[broken.index(True)])


def test_the_first_rule_in_order_counts() -> None:
    contract = Contract(name="toy", rules=(RULES["least"], RULES["range"]))
    data = frame(a=[0.5, 5.0, 5.0], b=[1.0, -1.0, 1.0])
    first = contract.first_broken(data)
    assert first.isna().tolist() == [True, False, False]
    assert first.tolist()[1:] == ["least", "range"]
    assert contract["range"].why == "w"


def test_a_problem_without_a_rule_is_never_accepted() -> None:
    contract = Contract(name="toy", rules=(RULES["range"],))
    with pytest.raises(KeyError, match="no rule moon"):
        contract.first_broken(frame(problem_rule=["moon"]))


def test_expectations_find_what_the_rules_find(tmp_path: Path) -> None:
    contract = Contract(name="toy", rules=tuple(RULES.values()))
    assert validate(contract, frame(a=[0.5, 0.5], b=[0.5, 0.5]), tmp_path / "right").failed == {}
    for name, columns, broken in CASES:
        data = frame(**columns)
        failed = validate(contract, data, tmp_path / name).failed
        assert set(failed) == {other for other, rule in RULES.items() if rule.broken(data).any()}
        assert failed[name].startswith(f"{sum(broken)} of ")
    twice = frame(id=["1", "1", "1"], part=["x", "y", "x"])
    assert set(validate(contract, twice, tmp_path / "twice").failed) == {"once"}


def test_data_docs_tell_the_reasons(tmp_path: Path) -> None:
    rule = Between(name="range", why="Because shares are shares.", column="a", least=0, most=1)
    validate(Contract(name="toy", rules=(rule,)), frame(a=[3.0]), tmp_path / "docs")
    pages = [page.read_text() for page in (tmp_path / "docs").rglob("*.html")]
    assert any("Because shares are shares." in page for page in pages)


@pytest.mark.parametrize("contract", [SA1B_CONTRACT, REFERRING_CONTRACT])
def test_every_declared_rule_has_one_name_a_reason_and_known_columns(contract: Contract) -> None:
    names = [rule.name for rule in contract.rules]
    assert len(names) == len(set(names))
    for rule in contract.rules:
        assert len(rule.why) > 20
        named = {getattr(rule, field, None) for field in ("column", "other", "limit")} - {None}
        assert named <= set(REFERRING_COLUMNS)


def test_columns_that_are_missing_or_of_another_kind_fail(tmp_path: Path) -> None:
    contract = Contract(name="toy", rules=(), columns={"a": "float", "b": "int", "id": "str"})
    assert validate(contract, frame(a=[0.5]), tmp_path / "right").failed == {}
    wrong = frame(a=["0.5"]).drop(columns="b")
    failed = validate(contract, wrong, tmp_path / "wrong").failed
    assert set(failed) == {"columns", "type_of_a", "type_of_b"}


def test_what_only_warns_is_accepted_and_fails_nothing(tmp_path: Path) -> None:
    rule = Absent(name="twice", why="Twice is once too often.", column="again", breach="warning")
    contract = Contract(name="toy", rules=(rule, RULES["range"]))
    data = frame(a=[0.5, 5.0], again=["id 1", None])
    assert contract.first_broken(data).tolist()[1:] == ["range"]
    assert contract.first_broken(data).isna().tolist() == [True, False]
    assert set(validate(contract, data, tmp_path / "docs").failed) == {"range"}
    assert contract.warnings == (rule,)


def test_data_docs_show_what_was_quarantined_with_ids_and_reasons(tmp_path: Path) -> None:
    contract = Contract(name="toy", rules=(RULES["range"], RULES["least"]))
    rejected = {"source_file": "sa_1", "image_id": "i7", "row_id": "r8", "rule": "range", "value": "a 3"}
    quarantined = pd.DataFrame([rejected])
    assert validate(contract, frame(a=[0.5]), tmp_path / "docs", quarantined).failed == {}
    pages = [page.read_text() for page in (tmp_path / "docs" / "validations").rglob("*.html")]
    (page,) = [page for page in pages if "r8" in page]
    assert "range: w" in page
    assert "sa_1" in page
    assert "a 3" in page
