"""An exchange with orders, checkpoints and commits: what a job may still take stays."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from jobs.runner.exchange import FolderExchange, Unreachable, open_exchange
from jobs.runner.stage_lock import free_stage
from orchestration.housekeeping.committed import git
from orchestration.housekeeping.part import LeftOut
from orchestration.housekeeping.rules import Verdict
from orchestration.housekeeping.run import clean
from orchestration.housekeeping.staged_jobs import COMMIT, MAILBOX, StagedJobs, returned_entries
from orchestration.launching.interface import JobHandle
from orchestration.launching.local import LocalLauncher
from orchestration.launching.staged import EXCHANGE_LOCK
from tests.jobs.runner.specs import job_spec
from tests.jobs.runner.toy_project import create
from tests.orchestration.housekeeping.ending import clean_and_be_killed, in_days, names, retention, why
from tests.orchestration.housekeeping.test_dvc_cache import commit

MANY = in_days(100)
OLD = "c" * 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = create(tmp_path_factory.mktemp("staged") / "toy")
    parameters = yaml.safe_load((root / "params.yaml").read_text())
    parameters["resources"] = {"work_tree": "staged"}
    (root / "params.yaml").write_text(yaml.safe_dump(parameters))
    commit(root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "toy")
    settings = tmp_path / "toy" / "infra" / "staging" / "settings.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"exchange: {tmp_path / 'exchange'}\n")
    return tmp_path / "toy"


def exchange(root: Path) -> FolderExchange:
    opened = open_exchange(str(root.parent / "exchange"))
    assert isinstance(opened, FolderExchange)
    return opened


def job(root: Path, fingerprint: str, commit_of_it: str = OLD) -> str:
    name = f"alto-toy-mask-tokens-{fingerprint * 12}"
    mailbox = exchange(root).below(f"jobs/{name}")
    mailbox.write("order.json", json.dumps({"commit": commit_of_it}).encode())
    mailbox.write("state/index.json", b'{"generation": 1, "files": {"a": "state/000000001/0"}}')
    mailbox.write("state/000000001/0", b"checkpoint")
    exchange(root).write(f"code/{commit_of_it}.bundle", b"bundle")
    return name


def delete(root: Path) -> list[Verdict]:
    return clean(StagedJobs(root, retention()), 1.0, MANY, delete=True)


def test_an_old_job_goes_with_its_commit(root: Path) -> None:
    name = job(root, "a")
    verdicts = delete(root)
    assert names(verdicts, MAILBOX) == {name}
    assert names(verdicts, COMMIT) == {f"code/{OLD}.bundle"}
    assert exchange(root).names() == []
    assert delete(root) == []


def test_a_live_job_and_its_commit_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, dead = job(root, "a"), job(root, "b", "d" * 40)
    monkeypatch.setattr(LocalLauncher, "jobs", lambda _: [JobHandle(name, "17")])
    verdicts = delete(root)
    assert names(verdicts, MAILBOX) == {dead}
    assert why(verdicts, MAILBOX, name) == "its job runs"
    assert why(verdicts, COMMIT, f"code/{OLD}.bundle") == f"{MAILBOX} {name} refers to it"
    assert names(verdicts, COMMIT) == {f"code/{'d' * 40}.bundle"}


def test_a_job_whose_work_folder_is_here_stays(root: Path) -> None:
    name = job(root, "a")
    job_spec("mask_tokens", root / ".work" / "mask_tokens" / ("a" * 32)).write()
    assert why(delete(root), MAILBOX, name) == "its work folder is here"


def test_the_commit_of_the_work_tree_stays(root: Path) -> None:
    number = git(root, "rev-parse", "HEAD").decode().strip()
    exchange(root).write(f"code/{number}.bundle", b"bundle")
    assert not any(verdict.removed for verdict in delete(root))


def test_young_ones_stay(root: Path) -> None:
    job(root, "a")
    soon = in_days(10)
    assert not any(one.removed for one in clean(StagedJobs(root, retention()), 1.0, soon, delete=True))


@pytest.mark.parametrize("time", [1, 2, 3])
def test_killed_in_between_no_index_names_a_checkpoint_that_is_gone(
    root: Path, monkeypatch: pytest.MonkeyPatch, time: int
) -> None:
    name = job(root, "a")
    clean_and_be_killed(lambda: StagedJobs(root, retention()), monkeypatch, Path, "unlink", time, MANY)
    left = exchange(root).names()
    assert f"jobs/{name}/order.json" not in left, "no order waits for what is gone"
    assert f"jobs/{name}/state/index.json" not in left or f"jobs/{name}/state/000000001/0" in left
    delete(root)
    assert exchange(root).names() == []


def test_orders_are_posted_under_the_lock_that_housekeeping_holds(root: Path) -> None:
    with StagedJobs(root, retention()).held(), free_stage(root, EXCHANGE_LOCK) as free:
        assert not free


def test_what_jobs_have_pushed_is_known_before_it_is_recorded(root: Path) -> None:
    name = job(root, "a")
    exchange(root).write(f"jobs/{name}/returned.json", b'{"md5": "0"}')
    work = root / ".work" / "mask_tokens" / ("b" * 32)
    job_spec("mask_tokens", work).write()
    (work / "returned.json").write_text('{"md5": "1"}')
    assert sorted(returned_entries(root)) == ['{"md5": "0"}', '{"md5": "1"}']


def test_an_exchange_that_does_not_answer_is_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise Unreachable("exchange /mnt: Stale file handle")

    monkeypatch.setattr(FolderExchange, "stored", away)
    with pytest.raises(LeftOut, match="^exchange: .*Stale file handle"):
        delete(root)
