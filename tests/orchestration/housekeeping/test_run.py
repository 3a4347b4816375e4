"""The whole of it, as the command and as the Dagster job: a table, an exit status, nothing that was not asked for."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from sqlalchemy.exc import OperationalError

from jobs.runner.stage_lock import StageLock
from orchestration.housekeeping import run
from orchestration.housekeeping.dagster_runs import DagsterRuns
from orchestration.housekeeping.jobs import housekeeping_job, housekeeping_schedule
from orchestration.housekeeping.settings import SETTINGS_FILE, read_retention
from orchestration.promotion.champion import Registry
from tests.jobs.runner.specs import job_spec
from tests.jobs.runner.toy_project import create, dvc, other_door
from tests.orchestration.conftest import Alto
from tests.orchestration.housekeeping.ending import ROOT, in_days

OLD = "a" * 32


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = create(tmp_path_factory.mktemp("whole") / "toy")
    for name in (SETTINGS_FILE, Path("infra/dagster/local.yaml")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    set_retention(root, dvc_cache={"days": 30, "commits": "none", "remote": False})
    for address in ("prepare_sa1b@a", "prepare_sa1b@b", "prepare_sa1b@c"):
        other_door(root, address)
    (root / ".work" / "dagster").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        Registry(root).client.create_registered_model("altollm")
    return root


def set_retention(root: Path, **sections: object) -> None:
    content = yaml.safe_load((root / SETTINGS_FILE).read_text())
    (root / SETTINGS_FILE).write_text(yaml.safe_dump(content | sections))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """With a work folder that no run takes up."""
    root = tmp_path / "toy"
    shutil.copytree(made, root)
    job_spec("tokenizer_stage1", root / ".work" / "tokenizer_stage1" / OLD).write()
    return root


@pytest.fixture
def root(alto: Alto, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `alto` runs, twenty days later."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.setenv("DAGSTER_HOME", str(folder / ".work" / "dagster"))
    later = in_days(20)
    monkeypatch.setattr(run, "time", SimpleNamespace(time=lambda: later))
    return folder


def work_folder(root: Path) -> Path:
    return root / ".work" / "tokenizer_stage1" / OLD


def test_without_delete_it_only_lists(alto: Alto, root: Path) -> None:
    shown = alto("housekeeping")
    assert shown.status == 0
    line = next(line for line in shown.stdout.splitlines() if line.startswith("work folder "))
    assert line.split()[2] == "delete"
    assert line.endswith("older than 14 days, nothing refers to it")
    assert "to delete: 1 things" in shown.stdout
    assert "`alto housekeeping --delete` deletes it" in shown.stdout
    assert work_folder(root).exists()


def test_each_thing_is_named_where_asked(alto: Alto, root: Path) -> None:
    assert f".work/tokenizer_stage1/{OLD} (older than 14 days" in alto("housekeeping", "--verbose").stdout
    assert OLD not in alto("housekeeping").stdout


def test_deleted_means_gone_and_the_second_call_finds_nothing(alto: Alto, root: Path) -> None:
    first = json.loads(alto("housekeeping", "--delete", "--json").stdout)
    assert (first["deleted"], first["removed_number"], first["left_out"]) == (True, 1, [])
    assert first["removed_bytes"] > 0
    assert not work_folder(root).exists()
    second = json.loads(alto("housekeeping", "--delete", "--json").stdout)
    assert second["removed_number"] == 0
    assert "up to date" in dvc(root, "status", "prepare_sa1b@a").stdout


def test_mlflow_away_leaves_that_out_and_does_the_rest(
    alto: Alto, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    shown = alto("housekeeping", "--delete")
    assert shown.status == 1
    lines = [line for line in shown.stdout.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 2, "versions, and the cache, of which they may need something"
    assert lines[0].startswith(
        "left out: MLflow is not reachable, so what is registered is left out; try again"
    )
    assert lines[1].startswith(
        "left out: DVC cache: MLflow does not say which data its versions were trained on"
    )
    assert not work_folder(root).exists()


def test_a_database_that_is_away_leaves_dagster_out(
    alto: Alto, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, OSError("connection refused"))

    monkeypatch.setattr(DagsterRuns, "find", away)
    shown = alto("housekeeping", "--delete")
    assert shown.status == 1
    assert "left out: DagsterRuns: (builtins.OSError) connection refused" in shown.stdout
    assert not work_folder(root).exists()


def test_wrong_settings_are_one_line(alto: Alto, root: Path) -> None:
    set_retention(root, grace_days=-1)
    refused = alto("housekeeping", "--delete")
    assert refused.status == 2
    assert refused.stderr.startswith("error: infra/retention.yaml: grace_days:")
    assert work_folder(root).exists()


def test_the_job_only_lists_until_the_settings_say_delete(root: Path) -> None:
    with dg.DagsterInstance.from_config(str(root / ".work" / "dagster")) as instance:
        for delete in (False, True):
            set_retention(root, delete=delete)
            done = housekeeping_job(root).execute_in_process(instance=instance)
            assert work_folder(root).exists() == (not delete)
            (output,) = (event for event in done.all_events if event.is_successful_output)
            metadata = output.step_output_data.metadata
            assert metadata["things"].value == 1
            assert "| work folder | " + ("deleted" if delete else "delete") in metadata["table"].value
            assert str(metadata["summary"].value).startswith("deleted:" if delete else "to delete:")


def test_the_job_fails_where_something_is_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with dg.DagsterInstance.from_config(str(root / ".work" / "dagster")) as instance:
        done = housekeeping_job(root).execute_in_process(instance=instance, raise_on_error=False)
        assert not done.success
        (failure,) = (event.step_failure_data for event in done.all_events if event.is_step_failure)
        assert "left out: MLflow is not reachable" in failure.error.message + str(failure.user_failure_data)


def test_the_schedule_is_that_of_the_settings_and_off_at_first() -> None:
    settings = read_retention(ROOT)
    schedule = housekeeping_schedule(housekeeping_job(ROOT), settings)
    assert (schedule.cron_schedule, schedule.execution_timezone) == (settings.cron, settings.time_zone)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED


def test_two_calls_that_delete_wait_for_each_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = StageLock.acquire
    monkeypatch.setattr(StageLock, "acquire", lambda lock: (asked.append(str(lock.address)), real(lock)))
    with dg.DagsterInstance.from_config(str(root / ".work" / "dagster")) as instance:
        run.keep_house(root, instance, delete=False)
        assert asked == [], "a dry run waits for nobody"
        run.keep_house(root, instance, delete=True)
    assert asked == ["housekeeping", "promotion", "registration", "exchange"]
