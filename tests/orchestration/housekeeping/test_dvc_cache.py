"""A real DVC project with versions in commits, in the run cache, in the work tree and in nobody's ledger."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo

from orchestration.housekeeping.committed import Commits, read_committed
from orchestration.housekeeping.dvc_cache import CACHED, REMOTE, DvcCache
from orchestration.housekeeping.mlflow_models import MlflowModels
from orchestration.housekeeping.part import LeftOut
from orchestration.housekeeping.rules import Verdict
from orchestration.housekeeping.run import clean
from orchestration.promotion.champion import CHAMPION_FILE
from tests.jobs.runner.toy_project import assert_cache_is_sound, create, dvc, other_door, set_parameters
from tests.orchestration.housekeeping.ending import clean_and_be_killed, in_days, names, retention, why

MANY = in_days(400)
REMOTE_CONFIG = "['remote \"storage\"']\n    url = ../../remote\n"
STAGES = ("prepare_sa1b@a", "prepare_sa1b@b")


def record(root: Path, suffix: str) -> None:
    set_parameters(root, {"prepare_sa1b": {"suffix": suffix}})
    for address in STAGES:
        other_door(root, address)


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=root, check=True)


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "ledger")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions `first` in a commit, two in those of a branch, `lost` in none, `now` in the work tree."""
    root = create(tmp_path_factory.mktemp("housekeeping") / "toy")
    config = root / ".dvc" / "config"
    remote = "[core]\n    remote = storage\n"
    config.write_text(config.read_text().replace("[core]\n", remote) + REMOTE_CONFIG)
    record(root, "first")
    commit(root)
    git(root, "checkout", "-qb", "branch")
    for suffix in ("of the branch before", "of the branch"):
        record(root, suffix)
        commit(root)
    git(root, "checkout", "-q", "-")
    record(root, "lost")
    record(root, "now")
    dvc(root, "push", *STAGES)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parent, tmp_path / "all")
    return tmp_path / "all" / "toy"


def cache(
    root: Path,
    commits: str = "all",
    *,
    remote: bool = False,
    days: int = 30,
    now: float = MANY,
    ledgers: Sequence[str] = (),
) -> DvcCache:
    """ledgers: of registered versions."""
    kept = retention(dvc_cache={"days": days, "commits": commits, "remote": remote})
    models = MlflowModels(root, kept)
    models.ledgers = list(ledgers)
    return DvcCache(root, kept, models, now)


def delete(root: Path, commits: str = "all", *, remote: bool = False) -> list[Verdict]:
    return clean(cache(root, commits, remote=remote), 1.0, MANY, delete=True)


def files_in_use(root: Path, **scope: bool) -> set[str]:
    """By DVC's own account."""
    with chdir(root), Repo() as repo:
        used = repo.used_objs(**scope).values()
    return {str(one.value) for several in used for one in several}


def cached(root: Path) -> set[str]:
    place = root / ".dvc" / "cache" / "files" / "md5"
    return {path.parent.name + path.name for path in place.glob("*/*")}


@pytest.mark.slow
def test_only_what_no_ledger_names_goes(root: Path) -> None:
    before = cached(root)
    in_use = files_in_use(root, all_commits=True)
    verdicts = delete(root)
    assert cached(root) == in_use
    assert names(verdicts, CACHED) == before - in_use
    assert len(before - in_use) > 0
    assert_cache_is_sound(root)
    assert "up to date" in dvc(root, "status", *STAGES).stdout
    assert not any(verdict.removed for verdict in delete(root)), "a second call finds nothing"
    for version in ("HEAD", "branch"):  # both can still be brought back
        git(root, "checkout", "-q", "--force", version)
        dvc(root, "checkout", "--force", *STAGES)
        assert "up to date" in dvc(root, "status", *STAGES).stdout


@pytest.mark.parametrize(("commits", "scope"), [("tips", {"all_branches": True}), ("none", {})])
def test_fewer_commits_may_be_kept(root: Path, commits: str, scope: dict[str, bool]) -> None:
    in_use = files_in_use(root, **scope)
    assert in_use < files_in_use(root, all_commits=True)
    delete(root, commits)
    assert cached(root) == in_use


@pytest.mark.parametrize("commits", ["all", "tips"])
def test_before_the_first_commit_there_is_only_the_work_tree(tmp_path: Path, commits: Commits) -> None:
    git(tmp_path, "init", "-q")
    assert list(read_committed(tmp_path, commits)) == []


def test_outside_git_the_cache_is_left_out_with_advice(root: Path) -> None:
    shutil.rmtree(root / ".git")
    dvc(root, "config", "core.no_scm", "true")
    with pytest.raises(
        LeftOut, match="^DVC cache: git rev-list: .*without git set dvc_cache.commits to none"
    ):
        delete(root)
    assert any(verdict.removed for verdict in delete(root, "none"))


def test_the_checkpoint_of_the_champion_stays_with_its_files(root: Path) -> None:
    lost = cached(root) - files_in_use(root, all_commits=True)
    pinned, other = sorted(name for name in lost if name.endswith(".dir"))[:2]
    (root / "infra").mkdir()
    (root / CHAMPION_FILE).write_text(json.dumps({"altollm": {"version": "1", "data_version": pinned}}))
    verdicts = delete(root)
    assert why(verdicts, CACHED, pinned) == "the champion was made from it"
    listed = json.loads((root / ".dvc/cache/files/md5" / pinned[:2] / pinned[2:]).read_text())
    assert {file["md5"] for file in listed} <= cached(root)
    assert other in names(verdicts, CACHED)


def test_what_is_young_stays(root: Path) -> None:
    soon = in_days(2)
    assert not any(verdict.removed for verdict in clean(cache(root, now=soon), 1.0, soon, delete=True))


def test_a_young_entry_of_the_run_cache_keeps_its_output(root: Path) -> None:
    """So that going back to earlier parameters still restores the result."""
    part = cache(root, days=500)
    assert not any(verdict.removed for verdict in clean(part, 1.0, in_days(9999), delete=False))


def test_data_that_a_registered_version_was_trained_on_stays(root: Path) -> None:
    """Also where its ledger was never committed."""
    lost = {
        verdict.found.key.name for verdict in clean(cache(root), 1.0, MANY, delete=False) if verdict.removed
    }
    part = cache(root, ledgers=[f"md5: {name}" for name in lost])
    assert lost
    assert not any(verdict.removed for verdict in clean(part, 1.0, MANY, delete=True))


def test_without_an_answer_of_the_registry_nothing_goes(root: Path) -> None:
    part = cache(root)
    part.models.ledgers = None
    with pytest.raises(LeftOut, match="which data its versions were trained on"):
        clean(part, 1.0, MANY, delete=True)


def test_a_dry_run_deletes_nothing(root: Path) -> None:
    before = cached(root)
    assert any(verdict.removed for verdict in clean(cache(root), 1.0, MANY, delete=False))
    assert cached(root) == before


@pytest.mark.slow
@pytest.mark.parametrize("time", [1, 3])
def test_killed_in_between_everything_named_is_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch, time: int
) -> None:
    clean_and_be_killed(lambda: cache(root), monkeypatch, Path, "unlink", time, MANY)
    in_use = files_in_use(root, all_commits=True)
    assert in_use < cached(root)
    assert_cache_is_sound(root)
    folders = {name for name in cached(root) if name.endswith(".dir")}
    with chdir(root), Repo() as repo:
        for name in folders:  # a folder that is left is whole
            listed = repo.cache.local.fs.cat_file(repo.cache.local.oid_to_path(name)).decode()
            assert {file["md5"] for file in json.loads(listed)} <= cached(root)
    delete(root)
    assert cached(root) == in_use


def test_the_remote_is_cleaned_only_where_asked(root: Path) -> None:
    remote = root.parent / "remote" / "files" / "md5"
    pushed = {path.parent.name + path.name for path in remote.glob("*/*")}
    lost = sorted(cached(root) - files_in_use(root, all_commits=True))
    for name in lost:  # as an earlier push has left it
        target = remote / name[:2] / name[2:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:], target)
    assert not names(delete(root), REMOTE)
    assert names(delete(root, remote=True), REMOTE) == set(lost)
    assert {path.parent.name + path.name for path in remote.glob("*/*")} == pushed
    assert "Everything is up to date" in dvc(root, "push").stdout
