"""What is referred to is never deleted, whatever was found; and what refers to something goes before it."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import InputError
from orchestration.housekeeping.rules import SECONDS_A_DAY, Found, Key, Rule, judge
from orchestration.housekeeping.settings import SETTINGS_FILE, read_retention

ROOT = Path(__file__).resolve().parents[3]
NOW = 1000 * SECONDS_A_DAY
RULES = {"run": Rule(days=10, newest=2), "file": Rule(days=5)}


@st.composite
def things(draw: st.DrawFn) -> list[Found]:
    """Each may refer to earlier ones, so references form no circle, and to what is not there."""
    found: list[Found] = []
    for number in range(draw(st.integers(0, 12))):
        others = [one.key for one in found] + [Key("file", "elsewhere")]
        found.append(
            Found(
                key=Key(draw(st.sampled_from(sorted(RULES))), str(number)),
                changed=NOW - SECONDS_A_DAY * draw(st.sampled_from([0.5, 3, 7, 20, 300])),
                bytes=draw(st.sampled_from([None, 0, 7])),
                needed=draw(st.sampled_from(["", "", "", "a ledger names it"])),
                refers_to=frozenset(draw(st.sets(st.sampled_from(others), max_size=3))),
                group=draw(st.sampled_from(["a", "b"])),
            )
        )
    return draw(st.permutations(found))


@given(things(), st.sampled_from([1.0, 8.0]))
@settings(max_examples=200, deadline=None)
def test_nothing_that_is_needed_or_young_is_deleted(found: list[Found], grace_days: float) -> None:
    verdicts = judge(found, RULES, grace_days, NOW)
    removed = {verdict.found.key for verdict in verdicts if verdict.removed}
    assert sorted(verdict.found.key for verdict in verdicts) == sorted(one.key for one in found)
    for verdict in verdicts:
        one, age = verdict.found, (NOW - verdict.found.changed) / SECONDS_A_DAY
        if one.key in removed:
            assert not one.needed
            assert age >= max(grace_days, RULES[one.key.kind].days)
        else:
            assert not one.refers_to & removed, "what is kept refers to it"
        assert verdict.why


@given(things())
@settings(max_examples=100, deadline=None)
def test_the_newest_of_each_group_are_kept(found: list[Found]) -> None:
    for verdict in judge(found, RULES, 1.0, NOW):
        one = verdict.found
        if verdict.removed and one.key.kind == "run":
            newer = [other for other in found if (other.key.kind, other.group) == ("run", one.group)]
            assert sum(other.changed >= one.changed for other in newer if other.key != one.key) >= 2


@given(things())
@settings(max_examples=100, deadline=None)
def test_cut_off_anywhere_nothing_left_refers_to_what_is_gone(found: list[Found]) -> None:
    order = [verdict.found for verdict in judge(found, RULES, 1.0, NOW) if verdict.removed]
    for last in range(len(order)):
        gone = {one.key for one in order[: last + 1]}
        left = [one for one in found if one.key not in gone]
        assert not any(one.refers_to & gone for one in left)


@given(things())
@settings(max_examples=100, deadline=None)
def test_a_second_call_finds_nothing_to_delete(found: list[Found]) -> None:
    kept = [verdict.found for verdict in judge(found, RULES, 1.0, NOW) if not verdict.removed]
    assert not any(verdict.removed for verdict in judge(kept, RULES, 1.0, NOW))


def test_an_old_thing_goes_and_a_young_one_stays() -> None:
    old, young = (
        Found(key=Key("file", name), changed=NOW - days * SECONDS_A_DAY)
        for name, days in (("old", 6), ("young", 4))
    )
    verdicts = {verdict.found.key.name: verdict for verdict in judge([old, young], RULES, 1.0, NOW)}
    assert verdicts["old"].removed
    assert verdicts["old"].why == "older than 5 days, nothing refers to it"
    assert verdicts["young"].why == "younger than 5 days"


def test_the_settings_that_are_shipped_only_list() -> None:
    assert not read_retention(ROOT).delete


@pytest.mark.parametrize(
    ("section", "value", "line"),
    [
        ("run_logs", {"days": 1000}, "run_logs.days must not be more than dagster_runs.days"),
        (
            "dvc_cache",
            {"days": 1, "commits": "some", "remote": False},
            "dvc_cache.commits: .*'all', 'tips' or 'none'",
        ),
        (
            "model_versions",
            {"days": 1, "newest": 1, "past_champions": 0},
            "model_versions.past_champions: .*greater",
        ),
        ("grace_days", 0, "grace_days: .*greater than 0"),
        ("runs", {"days": 1}, "runs: Extra inputs"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, section: str, value: object, line: str) -> None:
    content = yaml.safe_load((ROOT / SETTINGS_FILE).read_text())
    (tmp_path / SETTINGS_FILE).parent.mkdir()
    (tmp_path / SETTINGS_FILE).write_text(yaml.safe_dump({**content, section: value}))
    with pytest.raises(InputError, match=f"^infra/retention.yaml: .*{line}"):
        read_retention(tmp_path)
