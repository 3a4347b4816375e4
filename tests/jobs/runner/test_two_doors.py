"""`dvc repro` and the runner that Dagster calls keep one state.

Contents are compared and the cache re-hashed: a clean `dvc status` alone proves nothing.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import InputsMoved
from jobs.runner.run import run_stage
from jobs.runner.stage_lock import StageLock
from tests.jobs.runner import toy_project
from tests.jobs.runner.toy_project import (
    PARTITIONS,
    assert_cache_is_sound,
    dvc,
    other_door,
    runs,
    set_parameters,
)

EVERYTHING = [*(f"prepare_sa1b@{p}" for p in PARTITIONS), "tokenizer_stage1", "tokenizer_benchmark"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return toy_project.create(tmp_path / "project")


def in_processes(root: Path, addresses: list[str]) -> None:
    """Run several addresses at once, each in a process of its own, as Dagster does."""
    code = (
        "import sys; from pathlib import Path; from tests.jobs.runner.toy_project import other_door; "
        "other_door(Path(sys.argv[1]), sys.argv[2])"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(root), address], cwd=toy_project.REPOSITORY)
        for address in addresses
    ]
    assert [process.wait() for process in started] == [0] * len(addresses)


def assert_state_is_true(root: Path) -> None:
    """Every output holds what its inputs and parameters say, DVC agrees, and the cache is sound."""
    parameters = yaml.safe_load((root / "params.yaml").read_text())
    for text in EVERYTHING:
        address = StageAddress.parse(text)
        folder = {"prepare_sa1b": "data", "tokenizer_stage1": "models"}.get(address.stage, "reports")
        result = root / folder / "toy" / address.folder_name / "result.txt"
        expected = toy_project.expected_text(root, address, parameters.get(address.stage, {}))
        assert result.read_text() == expected, text
    assert sorted(yaml.safe_load((root / "dvc.lock").read_text())["stages"]) == sorted(EVERYTHING)
    assert "up to date" in dvc(root, "status").stdout
    assert_cache_is_sound(root)


def test_after_the_other_door_dvc_repro_runs_nothing(root: Path) -> None:
    for address in EVERYTHING:
        other_door(root, address)
    assert runs(root) == EVERYTHING
    dvc(root, "repro")
    assert runs(root) == EVERYTHING
    assert_state_is_true(root)


def test_after_dvc_repro_the_other_door_runs_nothing(root: Path) -> None:
    dvc(root, "repro")
    ran = runs(root)
    assert sorted(ran) == sorted(EVERYTHING)
    for address in EVERYTHING:
        other_door(root, address)
    assert runs(root) == ran
    assert_state_is_true(root)


def test_followers_run_only_if_their_input_really_changed(root: Path) -> None:
    dvc(root, "repro")
    before = len(runs(root))
    set_parameters(root, {"prepare_sa1b": {"suffix": "Prepared"}})  # same length: the model stays the same
    dvc(root, "repro")
    assert sorted(runs(root)[before:]) == sorted(
        [*(f"prepare_sa1b@{p}" for p in PARTITIONS), "tokenizer_stage1"]
    )
    assert_state_is_true(root)

    before = len(runs(root))
    set_parameters(root, {"prepare_sa1b": {"suffix": "Prepared"}, "tokenizer_stage1": {"round_to": 1}})
    for address in EVERYTHING:
        other_door(root, address)
    assert runs(root)[before:] == ["tokenizer_stage1", "tokenizer_benchmark"]
    assert_state_is_true(root)


def test_going_back_to_old_parameters_restores_from_the_run_cache(root: Path) -> None:
    dvc(root, "repro")
    set_parameters(root, {"tokenizer_stage1": {"round_to": 1}})
    other_door(root, "tokenizer_stage1")
    before = runs(root)
    set_parameters(root, {})
    for address in EVERYTHING:
        other_door(root, address)
    assert runs(root) == before
    assert_state_is_true(root)


def test_three_partitions_at_once_ten_rounds(root: Path) -> None:
    dvc(root, "repro")
    for round_number in range(10):
        suffix = f"round {round_number % 4}"  # comes back to earlier parameters too
        set_parameters(root, {"prepare_sa1b": {"suffix": suffix}})
        in_processes(root, EVERYTHING[:3])
        for address in EVERYTHING[3:]:
            other_door(root, address)
        assert_state_is_true(root)


def test_a_partition_is_replaced_as_a_whole(root: Path) -> None:
    def leave_more(spec: JobSpec, lock: StageLock) -> None:
        toy_project.toy_job(spec, lock)
        (spec.staging / "shard-00001.txt").write_text("of a larger batch")

    def die_at_the_end(spec: JobSpec, lock: StageLock) -> None:
        leave_more(spec, lock)
        raise KeyboardInterrupt

    address, folder = StageAddress("prepare_sa1b", "a"), root / "data/toy/prepare_sa1b/a"
    run_stage(root, address, leave_more)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    set_parameters(root, {"prepare_sa1b": {"suffix": "anew"}})
    with pytest.raises(KeyboardInterrupt):
        run_stage(root, address, die_at_the_end)
    assert not folder.exists()  # never a mixture: the recorded one is in the cache
    dvc(root, "checkout", "prepare_sa1b@a")
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    set_parameters(root, {"prepare_sa1b": {"suffix": "again"}})
    other_door(root, str(address))
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"result.txt": "raw a\nagain"}


@pytest.mark.parametrize("door", ["dvc", "other"])
def test_input_edited_while_the_job_runs_is_refused(root: Path, door: str) -> None:
    dvc(root, "repro")
    lock_before = (root / "dvc.lock").read_text()
    set_parameters(root, {"prepare_sa1b": {"suffix": "slow", "seconds": 2.0}})
    raw = root / "raw" / "a.txt"
    ran_before = len(runs(root))

    def edit_once_running() -> None:
        while len(runs(root)) == ran_before:
            time.sleep(0.02)
        raw.write_text("edited\n")

    editor = threading.Thread(target=edit_once_running)
    editor.start()
    if door == "dvc":
        result = dvc(root, "repro", "prepare_sa1b@a", check=False)
        assert result.returncode != 0
        assert "inputs changed while the job ran: raw/a.txt" in result.stderr
    else:
        with pytest.raises(InputsMoved, match=r"raw/a\.txt"):
            other_door(root, "prepare_sa1b@a")
    editor.join()
    assert (root / "dvc.lock").read_text() == lock_before
    assert_cache_is_sound(root)

    set_parameters(root, {})
    dvc(root, "repro")
    assert_state_is_true(root)


@pytest.mark.parametrize("first", ["dvc", "other"])
def test_both_doors_on_one_stage_at_once_run_it_once(root: Path, first: str) -> None:
    set_parameters(root, {"prepare_sa1b": {"seconds": 3.0}})
    doors = [
        threading.Thread(target=dvc, args=(root, "repro", "prepare_sa1b@a")),
        threading.Thread(target=in_processes, args=(root, ["prepare_sa1b@a"])),
    ]
    if first == "other":
        doors.reverse()
    doors[0].start()
    while not runs(root):
        time.sleep(0.02)
    doors[1].start()
    for door in doors:
        door.join(timeout=60)
        assert not door.is_alive(), "the doors wait for each other"
    assert runs(root) == ["prepare_sa1b@a"]
    set_parameters(root, {})
    dvc(root, "repro")
    assert_state_is_true(root)


def test_dvc_status_is_not_busy_while_a_job_runs(root: Path) -> None:
    set_parameters(root, {"prepare_sa1b": {"seconds": 4.0}})
    job = threading.Thread(target=in_processes, args=(root, ["prepare_sa1b@a"]))
    job.start()
    while not runs(root):
        time.sleep(0.02)
    status = dvc(root, "status", check=False)
    running = job.is_alive()
    job.join()
    assert status.returncode == 0, status.stderr
    assert running


def test_missing_input_is_one_clear_line(root: Path) -> None:
    from data_contracts.errors import InputError

    (root / "raw" / "b.txt").unlink()
    with pytest.raises(InputError, match=r"prepare_sa1b@b.*raw/b\.txt") as caught:
        other_door(root, "prepare_sa1b@b")
    assert "\n" not in str(caught.value)


def test_unknown_partition_is_one_clear_line(root: Path) -> None:
    from data_contracts.errors import InputError

    with pytest.raises(InputError, match="prepare_sa1b@z is not in dvc.yaml"):
        other_door(root, "prepare_sa1b@z")
