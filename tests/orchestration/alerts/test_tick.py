"""What is told, once each, whoever was away meanwhile."""

import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData

from assets.stage_asset import FINAL_TAG
from data_contracts.errors import InputError
from orchestration.alerts import tick
from orchestration.alerts.settings import SETTINGS_FILE
from orchestration.automation.retrying import ATTEMPT_TAG, PARTITION_TAG
from orchestration.launching.interface import JobHandle
from orchestration.promotion.history import Noted
from tests.orchestration.alerts.servers import Hook, web_server

ROOT = Path(__file__).parents[3]
NOW = time.time()
DAY = timedelta(days=1).total_seconds()


class Project:
    """A project with one webhook, its Dagster instance, and what stands for registry and launchers."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root, self.instance = root, instance
        self.decisions: list[Noted] | InputError = []
        self.unwatched: list[JobHandle] = []
        self.said: list[str] = []

    def look(self, later: float = 0.0) -> None:
        self.said = list(tick.tell(self.root, self.instance, NOW + later))

    def settings(self, **content: object) -> None:
        (self.root / SETTINGS_FILE).write_text(yaml.safe_dump(content))


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with web_server() as server:
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{server.port}/token")
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    (tmp_path / "infra").mkdir()
    shutil.copy(ROOT / "infra" / "automation.yaml", tmp_path / "infra")
    with dg.instance_for_test() as instance:
        made = Project(tmp_path, instance)
        made.settings(webhooks=[{"url_variable": "HOOK"}])
        monkeypatch.setattr(tick, "launchers_in_use", lambda root: [None])
        monkeypatch.setattr(tick, "orphans", lambda launcher, root: made.unwatched)

        class Registry:
            def __init__(self, root: Path) -> None:
                pass

            def decisions(self) -> list[Noted]:
                if isinstance(made.decisions, InputError):
                    raise made.decisions
                return made.decisions

        monkeypatch.setattr("orchestration.promotion.champion.Registry", Registry)
        made.look()  # the first look: what was before is not told
        yield made


@dg.asset(check_specs=[dg.AssetCheckSpec("contract", asset="prepare_sa1b", blocking=True)])
def prepare_sa1b(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Fails as its tags say."""
    if context.run.tags.get("how") == "check":
        yield dg.AssetCheckResult(passed=False, description="7 of 9 rows")
        raise dg.Failure("a blocking check failed", allow_retries=False)
    raise dg.Failure("out of memory\nEnd of its log: TOKEN", allow_retries=False)


def fail(project: Project, how: str = "", job: str = "sa1b_data", **tags: str) -> str:
    selected = dg.define_asset_job(job, selection=[prepare_sa1b])
    definitions = dg.Definitions(assets=[prepare_sa1b], jobs=[selected])
    names = {"partition": PARTITION_TAG, "attempt": ATTEMPT_TAG, "final": FINAL_TAG}
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=project.instance,
        raise_on_error=False,
        tags={"how": how} | {names[name]: value for name, value in tags.items()},
    )
    assert not result.success
    return result.run_id


def switch_retrying_on(instance: dg.DagsterInstance) -> None:
    location = InProcessCodeLocationOrigin(
        dg._core.types.loadable_target_origin.LoadableTargetOrigin(python_file="none")
    )
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "repository"), "retry_failed")
    data = SensorInstigatorData(min_interval=30)
    instance.add_instigator_state(
        InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
    )


def test_a_failed_run_is_told_once_with_its_first_line(project: Project, hook: Hook) -> None:
    run = fail(project, partition="batch_003", final="wrong input")
    project.look()
    project.look()
    (told,) = hook.got
    assert told["kind"] == "run_failed"
    assert told["text"] == "sa1b_data@batch_003: run failed: prepare_sa1b: out of memory"
    assert told["id"] == f"run {run}"
    assert told["link"].endswith(f"/runs/{run}")


def test_a_blocking_check_is_told_with_its_reason_and_not_as_a_failed_run_too(
    project: Project, hook: Hook
) -> None:
    fail(project, "check", final="a blocking check failed")
    project.look()
    assert [(told["kind"], told["text"]) for told in hook.got] == [
        ("check_failed", "sa1b_data: blocking check contract of prepare_sa1b failed: 7 of 9 rows")
    ]


def test_a_run_that_is_tried_again_is_told_when_its_last_try_has_failed(project: Project, hook: Hook) -> None:
    switch_retrying_on(project.instance)
    fail(project, partition="a")
    fail(project, partition="b")
    project.look()
    assert hook.got == []
    fail(project, partition="a", attempt="2")
    project.look()
    last = fail(project, partition="a", attempt="3")
    project.look()
    project.look()
    assert [told["id"] for told in hook.got] == [f"run {last}"]


def test_a_run_that_nobody_tries_again_is_told_at_once(project: Project, hook: Hook) -> None:
    switch_retrying_on(project.instance)
    fail(project, job="one_of_a_person")
    project.look()
    assert len(hook.got) == 1


def test_a_dead_server_loses_nothing_and_gets_nothing_twice(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server() as before:
        port = before.port
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{port}/token")
    runs = [fail(project, partition=name, final="x") for name in "ab"]
    project.look()
    assert project.said == ["webhook HOOK: ConnectionError; 2 to be sent, tried again at the next tick"]
    runs.append(fail(project, partition="c", final="x"))
    with web_server(port) as hook:
        hook.status = 500
        project.look()
        assert project.said[0] == "webhook HOOK: status 500; 3 to be sent, tried again at the next tick"
        hook.status = 200
        project.look()
        project.look()
    assert [told["id"] for told in hook.got] == [f"run {run}" for run in runs]
    assert not any("token" in line for line in project.said)


def test_what_cannot_be_sent_for_a_week_is_given_up_and_said(project: Project, hook: Hook) -> None:
    hook.status = 500
    fail(project, final="x")
    project.look()
    hook.status = 200
    project.look(later=8 * DAY)
    assert "webhook HOOK never gets" in project.said[0]
    assert hook.got == []


def test_each_destination_gets_its_kinds_and_one_that_is_away_keeps_no_other_waiting(
    project: Project, hook: Hook
) -> None:
    project.settings(
        webhooks=[
            {"url_variable": "GONE"},
            {"url_variable": "HOOK", "kinds": ["promoted", "refused"]},
        ]
    )
    fail(project, final="x")
    project.decisions = [
        Noted(version="4", what="refused", time="2030-01-07T03:00:00.000+00:00", reason="altollm 4 is worse"),
        Noted(
            version="5", what="promoted", time="2030-01-07T04:00:00.000+00:00", reason="altollm 5 is better"
        ),
    ]
    project.look()
    project.look()
    assert [told["text"] for told in hook.got] == [
        "refused: altollm 4 is worse",
        "promoted: altollm 5 is better",
    ]


def test_decisions_wait_for_the_registry_and_nothing_waits_for_it(project: Project, hook: Hook) -> None:
    project.decisions = InputError("the model registry does not answer")
    fail(project, final="x")
    project.look()
    assert [told["kind"] for told in hook.got] == ["run_failed"]
    assert project.said[-1] == "the model registry does not answer"
    promoted = Noted(version="4", what="promoted", time="2030-01-07T03:00:00.000+00:00", reason="better")
    project.decisions = [promoted]
    project.look()
    project.decisions = [
        promoted,
        Noted(version="4", what="rolled_back", time="2030-01-08T03:00:00.000+00:00", reason="3 is champion"),
    ]
    project.look()
    assert [told["kind"] for told in hook.got] == ["run_failed", "promoted", "rolled_back"]


def test_what_grows_too_old_is_told_once_until_it_is_made_again(project: Project, hook: Hook) -> None:
    project.instance.report_runless_asset_event(dg.AssetMaterialization("altollm_grpo"))
    for later in (27 * DAY, 28.1 * DAY, 29 * DAY):
        project.look(later)
    assert [told["kind"] for told in hook.got] == ["too_old"]
    project.instance.report_runless_asset_event(dg.AssetMaterialization("altollm_grpo"))
    project.look(27 * DAY)
    project.look(29 * DAY)
    assert [told["subject"] for told in hook.got] == ["altollm_grpo"] * 2


def test_a_job_that_nobody_watches_is_told_once(project: Project, hook: Hook) -> None:
    project.unwatched = [JobHandle(id="77", name="alto-altollm_sft-0123")]
    project.look()
    project.look()
    project.unwatched = []
    project.look()
    assert [told["kind"] for told in hook.got] == ["orphaned_job"]


def test_with_nobody_named_nothing_is_kept_for_later(project: Project, hook: Hook) -> None:
    project.settings(webhooks=[])
    fail(project, final="x")
    project.look()
    assert project.said == ["infra/alerts.yaml names nobody to be told"]
    project.settings(webhooks=[{"url_variable": "HOOK"}])
    project.look()
    project.look()
    assert hook.got == []
