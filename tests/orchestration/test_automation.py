"""When the pipeline acts by itself, and what it says when it does not."""

import asyncio
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.definitions.freshness_evaluator import FRESHNESS_EVALUATORS_BY_POLICY_TYPE
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import freeze_time

from data_contracts.errors import InputError
from jobs.runner.changes import Change
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import Recorded
from jobs.runner.lineage import read_lineage
from jobs.runner.staleness import Plan, StageState
from orchestration.automation import decision as decisions
from orchestration.automation import new_data
from orchestration.automation.conditions import FOLLOWS_ITS_INPUTS
from orchestration.automation.decision import decide, decide_on_new_data
from orchestration.automation.settings import read_automation
from orchestration.definitions import build_definitions
from tests.lineage.project import ROOT

LATER, EARLIER = 4e9, 0.0  # seconds since the epoch


def state(text: str, plan: Plan = "does_not_run", version: str | None = "v1", **others: object) -> StageState:
    address = StageAddress.parse(text)
    recorded = (
        Recorded(address=address, data_version=version, entry_hash="e", how="unchanged") if version else None
    )
    change = Change(kind="parameter", subject="x.steps", before=1, after=2)
    changes = (change,) if plan in ("runs", "restored") else ()
    return StageState(
        address=address, plan=plan, changes=changes, recorded=recorded, input_versions={}, **others
    )  # type: ignore[arg-type]


def lineage(read: Mapping[str, str] | None = None, **changed: StageState) -> list[StageState]:
    """Everything up to date, trained on version v1 of two batches and a data set, but for the states given."""
    read = (
        {"prepare_sa1b@a": "v1", "prepare_sa1b@b": "v1", "prepare_referring@r": "v1"}
        if read is None
        else read
    )
    states = {
        "a": state("prepare_sa1b@a"),
        "b": state("prepare_sa1b@b"),
        "r": state("prepare_referring@r"),
        "tokenizer": state("tokenizer_stage1", versions_read=read),
        "sft": state("altollm_sft", versions_read=read),
    }
    return list((states | changed).values())


def test_nothing_changed() -> None:
    decision = decide(lineage())
    assert (decision.start, decision.reason) == (False, "nothing changed since the last retraining")


def test_a_stale_stage_is_retrained_and_the_reason_names_it() -> None:
    decision = decide(lineage(tokenizer=state("tokenizer_stage1", "runs")))
    assert decision.start
    assert decision.reason == "tokenizer_stage1 (x.steps: 1 → 2)"


def test_a_batch_that_broke_its_contract_is_left_out() -> None:
    broken = state("prepare_sa1b@c", "runs", version=None)
    decision = decide(lineage(c=broken, tokenizer=state("tokenizer_stage1", "runs_if_changed")))
    assert not decision.start
    assert decision.reason.endswith("; left out: prepare_sa1b@c (never prepared)")
    assert decide(
        lineage(
            c=broken, b=state("prepare_sa1b@b", version="v2"), tokenizer=state("tokenizer_stage1", "runs")
        )
    ).start


def test_why_data_was_refused_is_said() -> None:
    refused = state("prepare_sa1b@c", "runs", version=None, refused="contract: 7 of 9 rows quarantined")
    assert decide(lineage(c=refused)).reason == (
        "nothing changed since the last retraining; left out: prepare_sa1b@c"
        " (refused: contract: 7 of 9 rows quarantined)"
    )
    newest = state("prepare_sa1b@a", "runs", refused="contract: 7 of 9 rows quarantined")
    waiting = decide(lineage(a=newest, tokenizer=state("tokenizer_stage1", "runs_if_changed")))
    assert waiting.reason == (
        "data is to be brought up to date first: prepare_sa1b@a"
        " (x.steps: 1 → 2; refused when it last ran: contract: 7 of 9 rows quarantined)"
    )


def test_stale_data_is_waited_for() -> None:
    decision = decide(lineage(a=state("prepare_sa1b@a", "runs"), tokenizer=state("tokenizer_stage1", "runs")))
    assert not decision.start
    assert decision.reason == "data is to be brought up to date first: prepare_sa1b@a (x.steps: 1 → 2)"


def test_without_data_nothing_is_trained() -> None:
    nothing = [state("prepare_sa1b@a", "runs", version=None), state("tokenizer_stage1", "runs", version=None)]
    assert decide(nothing).reason == "there is no data: prepare_sa1b has never run"


@pytest.mark.parametrize(("enough", "start"), [(100, True), (101, False)])
def test_new_data_is_counted_where_it_was_not_read(
    monkeypatch: pytest.MonkeyPatch, enough: int, start: bool
) -> None:
    counted = []

    def report(root: Path, profile: str, address: StageAddress) -> dict:
        counted.append(str(address))
        return {"figures": {"rows_accepted": 50}}

    monkeypatch.setattr(decisions, "read_report", report)
    read = {"prepare_sa1b@a": "v1", "prepare_sa1b@b": "older"}
    states = lineage(read, tokenizer=state("tokenizer_stage1", "runs", versions_read=read))
    decision = decide_on_new_data(Path(), "smoke", states, enough)
    assert counted == ["prepare_sa1b@b", "prepare_referring@r"]
    assert decision.start == start
    assert decision.reason.startswith(f"100 accepted rows have not been trained on, and {enough} are enough")


def test_what_was_trained_elsewhere_is_left_to_the_schedule() -> None:
    states = lineage({}, tokenizer=state("tokenizer_stage1", "runs"))
    assert "not known here" in decide_on_new_data(Path(), "smoke", states, 1).reason


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's parameters, with a data set from a folder."""
    for name in ("dvc.yaml", "partitions.yaml", "params.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for code in ("jobs", "alto_models", "data_contracts", "infra"):
        (tmp_path / code).symlink_to(ROOT / code)
    parameters = yaml.safe_load((tmp_path / "params.yaml").read_text())
    parameters["acquire_referring"]["datasets"]["refcoco"] = {
        "format": "refer",
        "source": "folder",
        "folder": "refcoco",
    }
    (tmp_path / "params.yaml").write_text("# written by hand\n" + yaml.safe_dump(parameters))
    (tmp_path / "refcoco").mkdir()
    return tmp_path


def test_a_data_set_has_a_new_version_when_its_folder_changed(project: Path) -> None:
    file = project / "refcoco" / "instances.json"
    assert new_data.new_versions(project, LATER) == {}
    file.write_text("{}")
    assert new_data.new_versions(project, EARLIER) == {}
    first = new_data.new_versions(project, LATER)
    new_data.set_versions(project, first)
    assert new_data.new_versions(project, LATER) == {}
    assert (project / "params.yaml").read_text().startswith("# written by hand\n")
    os.utime(file, (1, 1))
    assert new_data.new_versions(project, LATER).keys() == {"refcoco"} != first


def test_data_sets_are_acquired_again_for_parameters_and_not_for_code() -> None:
    code = StageState(
        address=StageAddress.parse("acquire_referring@b"),
        plan="runs",
        changes=(Change(kind="code", subject="jobs/acquire_referring.py", after="changed"),),
        recorded=None,
        input_versions={},
    )
    assert new_data.stale_datasets([state("acquire_referring@a", "runs"), code]).keys() == {"a"}


def test_conditions_and_freshness_are_those_of_the_settings(project: Path) -> None:
    graph = build_definitions(project).resolve_asset_graph()
    ages = read_automation(ROOT).freshness_days
    for key in graph.get_all_asset_keys():
        node, name = graph.get(key), key.to_user_string()
        assert (node.freshness_policy is not None) == (name in ages), name
        assert (node.automation_condition is not None) == (
            name in ("prepare_sa1b", "prepare_referring", "prepare_benchmark")
        ), name


def test_prepared_data_follows_what_was_acquired(project: Path) -> None:
    """A batch its own tars, a training set also every benchmark, whose images it must not hold."""
    definitions = build_definitions(project)
    benchmarks = read_lineage(project).stage("prepare_benchmark").partitions
    with dg.instance_for_test() as instance:
        cursor = dg.evaluate_automation_conditions(definitions, instance).cursor

        def follow(*made: str) -> dict[str, set[str | None]]:
            """Asset -> partitions asked for once these are there."""
            nonlocal cursor
            for address in map(StageAddress.parse, made):
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(address.stage, partition=address.partition)
                )
            asked = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
            cursor = asked.cursor
            found = {name: asked.get_requested_partitions(dg.AssetKey(name)) for name in FOLLOWS_ITS_INPUTS}
            return {name: partitions for name, partitions in found.items() if partitions}

        instance.add_dynamic_partitions("sa1b_batches", ["a", "b"])
        assert follow("acquire_sa1b@a") == {"prepare_sa1b": {"a"}}
        assert follow("prepare_sa1b@a") == {}
        assert follow("acquire_referring@refcoco") == {}
        assert follow(*(f"acquire_benchmark@{one}" for one in benchmarks)) == {
            "prepare_benchmark": {*benchmarks}
        }
        assert follow(*(f"prepare_benchmark@{one}" for one in benchmarks)) == {
            "prepare_referring": {"refcoco"}
        }


@pytest.mark.parametrize(
    ("days", "shown"), [(13, FreshnessState.PASS), (15, FreshnessState.WARN), (29, FreshnessState.FAIL)]
)
def test_a_model_that_grows_old_is_shown_so(project: Path, days: int, shown: FreshnessState) -> None:
    """By the judge that Dagster's daemon asks, `days` after the model was made."""
    node = build_definitions(project).resolve_asset_graph().get(dg.AssetKey("altollm_grpo"))
    judge = FRESHNESS_EVALUATORS_BY_POLICY_TYPE[type(node.freshness_policy)]()
    with dg.instance_for_test() as instance:
        context = LoadingContextForTest(instance)
        assert asyncio.run(judge.evaluate_freshness(context, node)) == FreshnessState.UNKNOWN
        instance.report_runless_asset_event(dg.AssetMaterialization("altollm_grpo"))
        with freeze_time(time.time() + days * 24 * 3600):
            context = LoadingContextForTest(instance)
            assert asyncio.run(judge.evaluate_freshness(context, node)) == shown


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"retraining": {"cron": "0 3 * * 1", "time_zone": "UTC", "new_rows": 0, "from_champion": False}},
            "retraining.new_rows",
        ),
        ({"freshness_days": {"prepare_sa1b": {"warn": 9, "fail": 3}}}, "must be less than"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, wrong: dict, said: str) -> None:
    settings = yaml.safe_load((ROOT / "infra/automation.yaml").read_text()) | wrong
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/automation.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match=said) as caught:
        read_automation(tmp_path)
    assert "\n" not in str(caught.value)


def test_schedule_says_why_it_skips_and_why_it_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration.automation import retraining as retrainings

    definitions = build_definitions(project)
    schedule = definitions.resolve_schedule_def("weekly_retraining")
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(
            instance, scheduled_execution_time=datetime(2025, 1, 6, tzinfo=UTC)
        )
        monkeypatch.setattr(retrainings, "lineage_state", lambda root: lineage())
        assert schedule.evaluate_tick(context).skip_message == "nothing changed since the last retraining"
        stale = lineage(tokenizer=state("tokenizer_stage1", "runs"))
        monkeypatch.setattr(retrainings, "lineage_state", lambda root: stale)
        (request,) = schedule.evaluate_tick(context).run_requests or []
        assert request.tags["alto/why"] == "tokenizer_stage1 (x.steps: 1 → 2)"
        run = instance.create_run_for_job(
            definitions.resolve_job_def("retraining"), status=dg.DagsterRunStatus.STARTED
        )
        assert schedule.evaluate_tick(context).skip_message == f"run {run.run_id} is still retraining"
