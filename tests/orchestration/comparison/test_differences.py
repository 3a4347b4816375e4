"""What two versions were made of differs in."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.comparison.differences import CodeChange, DataChange, ParameterChange, find_differences
from orchestration.comparison.versions import Entry, Version

FEW = settings(max_examples=40, deadline=None)
HASHES = st.sampled_from(["a", "b", "c"])
ENTRIES = st.builds(
    Entry,
    data_version=HASHES,
    code=st.dictionaries(st.sampled_from(["jobs/x.py", "jobs/y"]), HASHES),
)
VERSIONS = st.builds(
    Version,
    name=st.just("v"),
    commit=HASHES,
    parameters=st.dictionaries(
        st.sampled_from(["seed", "altollm_sft.steps", "profile"]), st.sampled_from([1, 2, None, "1", True])
    ),
    entries=st.dictionaries(st.sampled_from(["prepare_sa1b@a", "prepare_sa1b@b", "altollm_sft"]), ENTRIES),
)


def rows(address: str, data_version: str) -> int | None:
    return ord(data_version) if address.startswith("prepare_") else None


@FEW
@given(VERSIONS)
def test_a_version_does_not_differ_from_itself(version: Version) -> None:
    assert find_differences(version, version, rows).none


@FEW
@given(VERSIONS, VERSIONS)
def test_the_other_way_round_the_same_things_differ(before: Version, after: Version) -> None:
    there, back = find_differences(before, after, rows), find_differences(after, before, rows)
    assert {(one.name, one.before, one.after) for one in there.parameters} == {
        (one.name, one.after, one.before) for one in back.parameters
    }
    assert {(one.address, one.before, one.after, one.rows_before, one.rows_after) for one in there.data} == {
        (one.address, one.after, one.before, one.rows_after, one.rows_before) for one in back.data
    }
    assert there.code == back.code


def version(name: str, has_ledger: bool = True, **entries: Entry) -> Version:
    return Version(name=name, commit="", parameters={}, entries=entries, has_ledger=has_ledger)


def test_parameters_data_with_rows_and_code_are_told() -> None:
    old = Version(
        name="old",
        commit="",
        parameters={"seed": 1, "altollm_sft.steps": 500, "gone": True},
        entries={
            "prepare_sa1b@a": Entry("a", {"jobs/shared.py": "1"}),
            "altollm_sft": Entry("c", {"jobs/shared.py": "1", "jobs/same.py": "1"}),
        },
    )
    new = Version(
        name="new",
        commit="",
        parameters={"seed": 1, "altollm_sft.steps": 600},
        entries={
            "prepare_sa1b@a": Entry("b", {"jobs/shared.py": "2"}),
            "prepare_sa1b@new": Entry("a", {}),
            "altollm_sft": Entry("c", {"jobs/shared.py": "2", "jobs/same.py": "1"}),
        },
    )
    found = find_differences(old, new, rows)
    assert found.parameters == (
        ParameterChange(name="altollm_sft.steps", before="500", after="600"),
        ParameterChange(name="gone", before="True", after=None),
    )
    assert found.data == (
        DataChange(address="prepare_sa1b@a", before="a", after="b", rows_before=97, rows_after=98),
        DataChange(address="prepare_sa1b@new", before=None, after="a", rows_before=None, rows_after=97),
    )
    assert found.code == (CodeChange(path="jobs/shared.py", stages=("altollm_sft", "prepare_sa1b")),)


def test_without_a_ledger_data_are_not_called_different() -> None:
    found = find_differences(version("old", has_ledger=False), version("new", altollm_sft=Entry("a")), rows)
    assert found.data == ()
    assert "no ledger is kept with old" in found.unknown
    assert not found.none


def test_a_benchmark_of_other_models_is_not_a_versions_own() -> None:
    of_model = Entry("m1", {}, {})
    benchmark = Entry(
        "b", {}, {"models/small/altollm_grpo": "m1", "data/small/prepare_benchmark/scenes": "p"}
    )
    assert version("v", altollm_grpo=of_model, benchmark=benchmark).measured("benchmark") is benchmark
    assert version("v", altollm_grpo=Entry("m2"), benchmark=benchmark).measured("benchmark") is None
    assert version("v", altollm_grpo=of_model).measured("benchmark") is None
