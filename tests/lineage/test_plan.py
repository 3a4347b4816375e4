"""What `alto plan` says before is what happens after, through either door, for each kind of change."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from jobs.runner.check_failed import CheckFailed
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress
from jobs.runner.lineage import read_lineage
from jobs.runner.run import run_stage
from jobs.runner.stage_lock import StageLock
from jobs.runner.staleness import lineage_state
from orchestration.left_out import left_out, standing
from orchestration.plan import PlanTable, make_plan
from tests.lineage import plan_project
from tests.lineage.plan_project import DOORS, data_versions, jobs_run, set_parameters

pytestmark = pytest.mark.slow
A, B = "prepare_referring@a", "prepare_referring@b"
DATA = ("acquire_referring@a", "acquire_referring@b", A, B)
EVERYTHING = ("base_weights", *DATA, "tokenizer_stage1", "altollm_sft", "tokenizer_benchmark")
Words = dict[str, str]
NOTHING: Words = {}


@pytest.fixture(scope="module", params=["dvc", "dagster"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The door, and a project that everything has run in through it; each test leaves it up to date again."""
    root = plan_project.create(tmp_path_factory.mktemp(request.param) / "project")
    assert {row.plan for row in make_plan(root).rows} == {"runs"}
    DOORS[request.param](root)
    assert len(jobs_run(root)) == len(make_plan(root).rows)
    return request.param, root


def happens_as_planned(door: str, root: Path, plan: PlanTable) -> list[str]:
    """Run everything; returns the addresses whose job ran, which are just those that the plan allows."""
    before, already = data_versions(root), len(jobs_run(root))
    DOORS[door](root)
    after, ran = data_versions(root), jobs_run(root)[already:]
    changed = {address for address in after if before.get(address) != after[address]}
    expected = {row.address for row in plan.rows if row.plan == "runs"}
    expected |= {
        row.address for row in plan.rows if row.plan == "runs_if_changed" and changed & {*row.waits_for}
    }
    assert sorted(ran) == sorted(expected)
    assert all(row.plan == "does_not_run" and not row.why for row in make_plan(root).rows)
    return ran


def append(path: str, text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with (root / path).open("a") as file:
            file.write(text)

    return change


def parameters(**values: object) -> Callable[[Path], None]:
    return lambda root: set_parameters(root, **values)


def remove(*folders: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for folder in folders:
            shutil.rmtree(root / folder)

    return change


def edit_output(root: Path) -> None:
    path = root / "data/toy/prepare_referring/a/result.txt"
    path.unlink()  # it may be a link into the cache
    path.write_text("edited by hand\n")


def lose_output_and_cache(root: Path) -> None:
    version = data_versions(root)["tokenizer_stage1"]
    shutil.rmtree(root / "models/toy/tokenizer_stage1")
    (root / ".dvc/cache/files/md5" / version[:2] / version[2:]).unlink()


def upper_case(root: Path) -> None:
    path = root / "raw" / "a.txt"
    path.write_text(path.read_text().upper())


def add_partition(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / "raw" / f"{name}.txt").write_text(f"raw {name} is longer than the others\n")
        parameters = json.loads((root / "params.yaml").read_text())
        parameters["acquire_referring"]["datasets"][name] = {"version": "1"}
        parameters["prepare_referring"]["datasets"][name] = {"suffix": "prepared"}
        (root / "params.yaml").write_text(json.dumps(parameters))
        list_partitions(root, [*read_lineage(root).stage("prepare_referring").partitions, name])

    return change


def list_partitions(root: Path, names: Sequence[str]) -> None:
    (root / "partitions.yaml").write_text(yaml.safe_dump({"referring": {"datasets": list(names)}}))


FOLLOWERS = {"altollm_sft": "runs_if_changed", "tokenizer_benchmark": "runs_if_changed"}
TRAINING = {"tokenizer_stage1": "runs_if_changed", **FOLLOWERS}

# kind of change -> the change, what is planned (other stages: does_not_run), one reason, and what runs.
CHANGES: dict[str, tuple[Callable[[Path], None], Words, str, list[str]]] = {
    "parameter of a stage": (
        parameters(tokenizer_stage1__round_to=2),
        {"tokenizer_stage1": "runs", **FOLLOWERS},
        "tokenizer_stage1.round_to: 10 → 2",
        ["tokenizer_stage1", "altollm_sft", "tokenizer_benchmark"],
    ),
    "parameter that changes no result": (
        parameters(tokenizer_stage1__note="a word"),
        {"tokenizer_stage1": "runs", **FOLLOWERS},
        "tokenizer_stage1.note: none → a word",
        ["tokenizer_stage1"],
    ),
    "parameter of one data set": (
        parameters(prepare_referring__datasets__a__suffix="Prepared"),
        {A: "runs", **TRAINING},
        "prepare_referring.datasets.a.suffix: prepared → Prepared",
        [A, "tokenizer_stage1", "altollm_sft"],
    ),
    "seed": (
        parameters(seed=2),
        dict.fromkeys(EVERYTHING, "runs"),
        "seed: 1 → 2",
        [*EVERYTHING],
    ),
    "resources": (parameters(resources__needs__default__cpus=8), NOTHING, "", []),
    "code file of one stage": (
        append("code/prepare.py", "# a comment\n"),
        {A: "runs", B: "runs", **TRAINING},
        "code/prepare.py changed",
        [A, B],
    ),
    "code file of several stages": (
        append("code/shared/other.py", "# a comment\n"),
        {A: "runs", B: "runs", "tokenizer_stage1": "runs", **FOLLOWERS},
        "code/shared",
        [A, B, "tokenizer_stage1"],
    ),
    "version of a data set": (
        parameters(acquire_referring__datasets__a__version="2"),
        {"acquire_referring@a": "runs", A: "runs_if_changed", **TRAINING},
        "acquire_referring.datasets.a.version: 1 → 2",
        ["acquire_referring@a"],  # the same files under another version
    ),
    "base weights": (
        parameters(base_weights__folder="champion-2"),
        {"base_weights": "runs", **TRAINING},
        "base_weights.folder: champion-1 → champion-2",
        ["base_weights", "tokenizer_stage1", "altollm_sft", "tokenizer_benchmark"],
    ),
    "what is said of the base weights": (
        parameters(base_weights__licence="Apache-2.0"),
        {"base_weights": "runs", **TRAINING},
        "base_weights.licence: none → Apache-2.0",
        ["base_weights"],
    ),
    "code of a shared module": (
        lambda root: (root / "code/shared/text.py").write_text("VERSION = 2\n"),
        {A: "runs", B: "runs", "tokenizer_stage1": "runs", **FOLLOWERS},
        "code/shared",
        [A, B, "tokenizer_stage1", "altollm_sft", "tokenizer_benchmark"],
    ),
    "raw data file": (
        upper_case,
        {"acquire_referring@a": "runs", A: "runs_if_changed", **TRAINING},
        "raw/a.txt changed",
        ["acquire_referring@a", A],
    ),
    "removed output": (
        remove("data/toy/prepare_referring/a"),
        {A: "restored"},
        "data/toy/prepare_referring/a was removed",
        [],
    ),
    "several removed outputs": (
        remove("data/toy/prepare_referring", "models/toy/tokenizer_stage1"),
        {A: "restored", B: "restored", "tokenizer_stage1": "restored"},
        "models/toy/tokenizer_stage1 was removed",
        [],
    ),
    "removed output that is not in the cache": (
        lose_output_and_cache,
        {"tokenizer_stage1": "runs", **FOLLOWERS},
        "models/toy/tokenizer_stage1 is not in the cache",
        ["tokenizer_stage1"],
    ),
    "edited output": (edit_output, {A: "restored"}, "data/toy/prepare_referring/a was edited", []),
    "code and a removed output that depends on it": (
        lambda root: (append("code/prepare.py", "# another\n")(root), remove("models/toy/altollm_sft")(root)),
        {A: "runs", B: "runs", **TRAINING},
        "otherwise restored: models/toy/altollm_sft was removed",
        [A, B],
    ),
    "new partition": (
        add_partition("c"),
        {"acquire_referring@c": "runs", "prepare_referring@c": "runs", **TRAINING},
        "prepare_referring@c has never run",
        [
            "acquire_referring@c",
            "prepare_referring@c",
            "tokenizer_stage1",
            "altollm_sft",
            "tokenizer_benchmark",
        ],
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_kind_of_change(project: tuple[str, Path], kind: str) -> None:
    door, root = project
    change, words, reason, expected = CHANGES[kind]
    change(root)
    plan = make_plan(root)
    assert {row.address: row.plan for row in plan.rows if row.plan != "does_not_run"} == words
    assert reason in "\n".join(row.why for row in plan.rows)
    assert (plan.runs.rows, plan.runs_if_changed.rows) == tuple(
        list(words.values()).count(word) for word in ("runs", "runs_if_changed")
    )
    assert sorted(happens_as_planned(door, root, plan)) == sorted(expected)


def test_partition_taken_off_the_list(project: tuple[str, Path]) -> None:
    """What it left is read as long as it lies there; without it, what was trained before it came is restored."""
    door, root = project
    before = read_lineage(root).stage("prepare_referring").partitions
    add_partition("z")(root)
    happens_as_planned(door, root, make_plan(root))
    list_partitions(root, before)
    assert happens_as_planned(door, root, make_plan(root)) == []
    remove("data/toy/prepare_referring/z")(root)
    plan = make_plan(root)
    words = {row.address: row.plan for row in plan.rows if row.plan != "does_not_run"}
    assert words == dict.fromkeys(("tokenizer_stage1", *FOLLOWERS), "restored")
    assert happens_as_planned(door, root, plan) == []


def test_newest_version_that_was_refused(project: tuple[str, Path]) -> None:
    """The plan says so until its inputs change; what was trained on the version before stands."""
    door, root = project
    why = "contract: 7 of 9 rows quarantined"

    def refuse(spec: JobSpec, lock: StageLock) -> None:
        check = {"name": "contract", "passed": False, "blocking": True, "reason": why.partition(": ")[2]}
        spec.rejected.mkdir(parents=True)
        (spec.rejected / "report.json").write_text(json.dumps({"checks": [check]}))
        raise CheckFailed.of(spec)

    set_parameters(root, prepare_referring__datasets__b__suffix="broken")
    with pytest.raises(CheckFailed):
        run_stage(root, StageAddress.parse(B), refuse)
    states = lineage_state(root)
    (refused,) = (state for state in states if str(state.address) == B)
    assert refused.recorded
    assert " → broken, data/toy/prepare_referring/b was removed" in refused.why
    assert refused.why.endswith(f"; refused when it last ran: {why}")
    assert left_out(states) == {refused.address: f"refused: {why}"}
    assert standing(states) == {state.address for state in states} - {refused.address}
    set_parameters(root, prepare_referring__datasets__b__suffix="mended")
    states = lineage_state(root)
    assert left_out(states) == {}
    assert standing(states) == {state.address for state in states if not state.waits_for} - {refused.address}
    happens_as_planned(door, root, make_plan(root))


def test_switched_profile_and_back(project: tuple[str, Path]) -> None:
    door, root = project
    set_parameters(root, profile="other")
    plan = make_plan(root)
    assert {(row.plan, row.why) for row in plan.rows} == {("runs", "profile: toy → other")}
    happens_as_planned(door, root, plan)
    set_parameters(root, profile="toy")
    plan = make_plan(root)
    assert {row.plan for row in plan.rows} == {"restored"}
    assert happens_as_planned(door, root, plan) == []


def test_value_that_was_tried_before(project: tuple[str, Path]) -> None:
    """Its result is in the cache, and what follows is known from it before anything is restored."""
    door, root = project
    DOORS[door](root)
    first = json.loads((root / "params.yaml").read_text())["tokenizer_stage1"]["round_to"]
    set_parameters(root, tokenizer_stage1__round_to=3)
    happens_as_planned(door, root, make_plan(root))
    shutil.rmtree(root / "models/toy/altollm_sft")
    set_parameters(root, tokenizer_stage1__round_to=first)
    plan = make_plan(root)
    restored = {"tokenizer_stage1", *FOLLOWERS}
    assert {row.address for row in plan.rows if row.plan == "restored"} == restored
    assert happens_as_planned(door, root, plan) == []


def test_what_if(project: tuple[str, Path]) -> None:
    door, root = project
    before = (root / "params.yaml").read_text()
    plan = make_plan(root, ["tokenizer_stage1.round_to=4", "resources.needs.default.cpus=2"])
    assert {row.address: row.plan for row in plan.rows if row.plan != "does_not_run"} == {
        "tokenizer_stage1": "runs",
        **FOLLOWERS,
    }
    assert (root / "params.yaml").read_text() == before
    assert {row.plan for row in make_plan(root).rows} == {"does_not_run"}


def test_cost_and_files_are_those_of_the_last_run(project: tuple[str, Path]) -> None:
    door, root = project
    if door == "dvc":
        pytest.skip("the command of this project keeps no telemetry")
    set_parameters(root, tokenizer_stage1__round_to=7)
    happens_as_planned(door, root, make_plan(root))
    append("code/shared/other.py", "# more\n")(root)
    plan = make_plan(root)
    row = next(row for row in plan.rows if row.address == "tokenizer_stage1")
    assert row.why == "code/shared/other.py changed"
    telemetry = json.loads((root / ".work/tokenizer_stage1/last_run/last_run.json").read_text())
    assert (row.seconds, row.estimated) == (telemetry["seconds"], False)
    taken = [row.seconds or 0.0 for row in plan.rows if row.plan == "runs"]
    assert plan.runs.seconds == pytest.approx(sum(taken))
    assert plan.runs.unknown == 0
    happens_as_planned(door, root, plan)
