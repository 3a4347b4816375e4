"""Work folders of a toy project: what a run may go on from stays, what no run will take goes as a whole."""

import json
import os
import shutil
from pathlib import Path

import pytest

from jobs.runner import stage_lock
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import Ledger
from jobs.runner.outbox import MlflowRun, Outbox, Sent
from jobs.runner.stage_lock import StageLock
from orchestration.housekeeping.part import LeftOut
from orchestration.housekeeping.rules import Verdict
from orchestration.housekeeping.run import clean
from orchestration.housekeeping.work_folders import CURVES, REJECTED, SUPERSEDED, TRASH, WorkFolders
from orchestration.launching.interface import JobHandle, LaunchFailed
from orchestration.launching.local import LocalLauncher
from tests.jobs.runner.specs import job_spec
from tests.jobs.runner.toy_project import create, other_door, set_parameters
from tests.orchestration.housekeeping.ending import clean_and_be_killed, in_days, names, retention, why

MANY = in_days(400)
OLD, OTHER = "a" * 32, "b" * 32
STAGE = StageAddress("tokenizer_stage1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = create(tmp_path_factory.mktemp("work") / "toy")
    for partition in ("a", "b", "c"):
        other_door(root, f"prepare_sa1b@{partition}")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """Its `tokenizer_stage1` has not run yet."""
    shutil.copytree(made, tmp_path / "toy")
    return tmp_path / "toy"


def interrupted(root: Path, fingerprint: str, stage: str = "tokenizer_stage1") -> Path:
    """What a killed job leaves."""
    spec = job_spec(stage.split("/")[0], root / ".work" / stage / fingerprint)
    spec.write()
    spec.state.mkdir()
    (spec.state / "checkpoint").write_text("half way")
    return spec.work


def next_job(root: Path) -> str:
    with StageLock(root, STAGE) as lock:
        begun = Ledger(root).begin(STAGE, lock)
    assert isinstance(begun, JobSpec)
    return begun.fingerprint


def part(root: Path) -> WorkFolders:
    return WorkFolders(root, retention())


def delete(root: Path) -> list[Verdict]:
    return clean(part(root), 1.0, MANY, delete=True)


def test_the_checkpoint_of_the_next_run_stays_and_others_go(root: Path) -> None:
    current = interrupted(root, next_job(root))
    old, of_a_batch = interrupted(root, OLD), interrupted(root, OTHER, "prepare_sa1b/a")
    gone = interrupted(root, OLD, "prepare_sa1b/not_listed_any_more")
    verdicts = delete(root)
    assert (current / "state" / "checkpoint").exists()
    name = current.relative_to(root).as_posix()
    assert why(verdicts, SUPERSEDED, name) == "the next run of its stage goes on from it"
    assert not any(folder.exists() for folder in (old, of_a_batch, gone))
    assert not any(verdict.removed for verdict in delete(root)), "a second call finds nothing"


def test_after_a_change_of_parameters_it_is_another_one(root: Path) -> None:
    before = interrupted(root, next_job(root))
    set_parameters(root, {"tokenizer_stage1": {"round_to": 3}})
    after = interrupted(root, next_job(root))
    delete(root)
    assert not before.exists()
    assert after.exists()


def test_refused_results_are_kept_for_a_look(root: Path) -> None:
    (interrupted(root, OLD) / "rejected").mkdir()
    for days, removed in ((20, False), (40, True)):
        verdicts = clean(part(root), 1.0, in_days(days), delete=False)
        assert names(verdicts, REJECTED, removed=removed) == {f".work/tokenizer_stage1/{OLD}"}


def test_without_its_inputs_nobody_knows_what_runs_next(root: Path) -> None:
    folder = interrupted(root, OLD)
    shutil.rmtree(root / "data")
    delete(root)
    assert folder.exists()


def test_a_stage_that_runs_keeps_all_its_folders(root: Path) -> None:
    folder = interrupted(root, OLD)
    with StageLock(root, STAGE):
        assert not any(verdict.removed for verdict in delete(root))
    assert folder.exists()


def test_a_live_job_keeps_its_folder_without_a_lock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster's job goes on when the process that submitted it has died."""
    folder = interrupted(root, OLD)
    handle = JobHandle(f"alto-toy-tokenizer-stage1-{OLD[:12]}", "17")
    monkeypatch.setattr(LocalLauncher, "jobs", lambda _: [handle])
    assert not any(verdict.removed for verdict in delete(root))
    assert folder.exists()


def test_a_scheduler_that_does_not_answer_leaves_them_all(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise LaunchFailed("squeue: cannot reach slurmctld")

    interrupted(root, OLD)
    monkeypatch.setattr(LocalLauncher, "jobs", away)
    with pytest.raises(LeftOut, match="not known which jobs run .*slurmctld"):
        delete(root)


def test_a_run_that_begins_after_the_look_keeps_its_folder(root: Path) -> None:
    folder = interrupted(root, OLD)
    looked = part(root)
    found = [one.key for one in looked.find()]
    with StageLock(root, STAGE):
        looked.remove(found)
    assert folder.exists()
    (folder / "state" / "checkpoint.2").write_text("went on, and was killed")
    looked.remove(found)
    assert folder.exists()


@pytest.mark.parametrize(("where", "call"), [(Path, "rename"), (stage_lock.StageLock, "acquire_now")])
def test_killed_in_between_a_folder_is_whole_or_gone(
    root: Path, monkeypatch: pytest.MonkeyPatch, where: type, call: str
) -> None:
    folder = interrupted(root, OLD)
    clean_and_be_killed(lambda: part(root), monkeypatch, where, call, 1, MANY)
    assert not folder.exists() or (folder / "state" / "checkpoint").exists()
    verdicts = delete(root)
    assert not folder.exists()
    assert bool(names(verdicts, TRASH)) == (call == "rename")
    assert list((root / ".work" / "trash").rglob("*")) == []


def outbox(root: Path, place: str, *, sent: bool) -> Path:
    made = Outbox(root / place)
    made.begin("toy", "tokenizer_stage1", {}, {"seed": 1})
    made.add_point(1, {"loss": 0.5})
    if sent:
        made._write_sent(Sent(MlflowRun("1", "r"), os.path.getsize(made.folder / "entries.jsonl")))
    return made.folder


def test_curves_go_when_mlflow_has_them_and_the_run_is_still_known(root: Path) -> None:
    sent = outbox(root, ".work/tokenizer_stage1/last_run/mlflow", sent=True)
    unsent = outbox(root, ".work/mlflow_unsent/0f", sent=False)
    before = json.loads((sent / "sent.json").read_text())
    verdicts = delete(root)
    assert names(verdicts, CURVES) == {".work/tokenizer_stage1/last_run/mlflow"}
    assert Outbox(sent).run == MlflowRun("1", "r")
    assert Outbox(sent).is_sent
    assert json.loads((sent / "sent.json").read_text()) == before
    assert not Outbox(unsent).is_sent
    assert not any(verdict.removed for verdict in delete(root))
