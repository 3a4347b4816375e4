"""Thirteen weeks: what runs, what is said, who is champion, and that nothing is lost. One retraining is a real one."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from assets.stage_asset import FINAL_TAG
from jobs.runner import registry, worker
from jobs.runner.staleness import lineage_state
from orchestration import definitions as code_location
from orchestration.housekeeping.mlflow_models import VERSION
from orchestration.housekeeping.run import keep_house
from orchestration.jobs import RETRAINING
from orchestration.promotion.champion import ALTOLLM, TOKENIZER
from orchestration.promotion.decision import roll_back
from tests.jobs.runner.toy_project import assert_cache_is_sound
from tests.lineage import quarter_project
from tests.lineage.project import data_versions
from tests.lineage.quarter import Quarter, Week, World, prepare_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
TRAINING = [stage for stage in RETRAINING if stage != "base_weights"]
MEASURING = ["benchmark@scenes", "benchmark_report"]
NOTHING = "nothing changed since the last retraining"
BROKEN = "prepare_sa1b@batch_003"


@pytest.fixture
def quarter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Quarter]:
    root = tmp_path / "project"
    quarter_project.create(root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    world = World(scratch=tmp_path)
    monkeypatch.setattr(code_location, "StageLauncher", lambda: world)
    monkeypatch.setattr(registry, "package_segmenter", world.package)
    # Of data, in this very process: nothing is to be left behind in it.
    monkeypatch.setattr(worker, "make_arithmetic_repeatable", lambda threads: None)
    with dg.instance_for_test() as instance:
        quarter = Quarter(root, instance, world)
        prepare_data(quarter)
        yield quarter


def test_a_quarter(quarter: Quarter, monkeypatch: pytest.MonkeyPatch) -> None:
    world = quarter.world

    def week(iou: float | None = None, diverges: bool = False, real: bool = False) -> Week:
        world.iou, world.diverges, world.real = iou or world.iou, diverges, real
        return quarter.go_on()

    def quiet(champion: str, said: str = NOTHING) -> Week:
        return Week(ran=[], said=said, champion=champion, failed={}, decided=[])

    first = week(iou=0.9)
    assert sorted(first.ran) == sorted(["base_weights", *TRAINING, *MEASURING])
    assert "base_weights has never run" in first.said
    assert first.champion == "1"
    assert first.decided == ["altollm 1 is better than the baselines (there is no champion)"]
    assert week() == quiet(champion="1")

    quarter.add_shard()
    worse = week(real=True)
    assert worse.ran[:2] == ["acquire_sa1b@batch_001", "prepare_sa1b@batch_001"]
    assert sorted(worse.ran[2:]) == sorted([*TRAINING, *MEASURING])
    assert "prepare_sa1b@batch_001 is new" in worse.said
    assert worse.failed == {}
    assert (worse.champion, worse.decided) == ("1", ["altollm 2 is not shown to be better than champion 1"])
    assert "| NO | scenes | giou worse by at most 0.01 | -0." in promotion_table(quarter.instance)
    assert "| NO | all benchmarks | better for sure in one of giou | in none |" in promotion_table(
        quarter.instance
    )
    assert week() == quiet(champion="1")

    quarter.add_shard()
    with monkeypatch.context() as patch:
        patch.setattr(registry, "use_project_store", unreachable)
        better = week(iou=0.97)
    assert sorted(better.ran[2:]) == sorted([*TRAINING, *MEASURING])
    assert (better.champion, better.decided) == ("1", [])
    assert better.failed.keys() == {"reporting"}
    assert "the server does not answer" in better.failed["reporting"]
    later = week()
    assert (later.ran, later.said, later.champion) == ([], NOTHING, "3")  # the report alone is tried again
    assert later.decided == ["altollm 3 is better than champion 1"]

    quarter.add_shard(broken=True)
    broken = week()
    assert broken.ran == ["acquire_sa1b@batch_003", BROKEN]
    assert broken.failed.keys() == {"sa1b_data"}
    assert f"{BROKEN}: blocking check failed, nothing recorded (contract:" in broken.failed["sa1b_data"]
    assert "contract" in failed_checks(quarter.instance, "prepare_sa1b")
    why = broken.said.removeprefix(f"{NOTHING}; left out: {BROKEN} (refused: ").removesuffix(")")
    assert why.startswith("contract: ")
    assert week() == quiet("3", broken.said)  # what a check refused is not tried again

    quarter.add_shard()
    diverged = week(iou=0.99, diverges=True)
    assert diverged.failed.keys() == {"retraining"}
    assert "altollm_sft: blocking check failed" in diverged.failed["retraining"]
    assert failed_checks(quarter.instance, "altollm_sft")
    assert (diverged.ran[-1], diverged.champion) == ("altollm_sft", "3")
    last = week()
    assert last.ran == ["altollm_sft", "altollm_grpo", *MEASURING]  # the tokenizer of last week is up to date
    assert "altollm_sft" in last.said
    assert (last.failed, last.champion) == ({}, "4")
    assert last.decided == [f"altollm 4 is better than champion 3; not trained on {BROKEN} (refused: {why})"]
    assert f"| left out | {BROKEN} |" in promotion_table(quarter.instance)
    for _ in range(3):
        assert week() == quiet("4", broken.said)

    assert quarter.week == 13
    assert final_runs(quarter.instance) == {"sa1b_data": "batch_003", "retraining": None}
    stale = {str(state.address): state.why for state in lineage_state(quarter.root) if state.plan == "runs"}
    assert stale == {BROKEN: f"{BROKEN} has never run; refused when it last ran: {why}"}
    assert_recorded_is_cached(quarter.root)
    assert_versions_are_whole("1", "2", "3", "4")

    a_year_later = time.time() + 365 * 24 * 3600
    cleaned = keep_house(quarter.root, quarter.instance, delete=True, now=a_year_later)
    assert cleaned.left_out == ()
    assert VERSION in {line.kind for line in cleaned.lines if line.removed}
    assert {
        str(state.address): state.why for state in lineage_state(quarter.root) if state.plan == "runs"
    } == stale
    assert_recorded_is_cached(quarter.root)
    assert_versions_are_whole("1", "3", "4")  # those that were champion, for a rollback
    assert [roll_back(quarter.root), roll_back(quarter.root)] == ["3", "1"]


def unreachable(root: Path) -> None:
    raise MlflowException("the server does not answer")


def promotion_table(instance: dg.DagsterInstance) -> str:
    """What the newest promotion shows."""
    event = instance.get_latest_materialization_event(dg.AssetKey("promotion"))
    assert event is not None
    assert event.asset_materialization is not None
    return str(event.asset_materialization.metadata["findings"].value)


def failed_checks(instance: dg.DagsterInstance, asset: str) -> set[str]:
    """Names of checks with a failed evaluation."""
    of_checks = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [
        record.event_log_entry.dagster_event.event_specific_data
        for record in instance.get_event_records(of_checks, limit=1000)
        if record.event_log_entry.dagster_event
    ]
    return {one.check_name for one in found if one.asset_key == dg.AssetKey(asset) and not one.passed}


def final_runs(instance: dg.DagsterInstance) -> dict[str, str | None]:
    """Job -> partition, of the runs that are not to be tried again."""
    runs = instance.get_runs()
    return {run.job_name: run.tags.get("dagster/partition") for run in runs if FINAL_TAG in run.tags}


def assert_recorded_is_cached(root: Path) -> None:
    """Every file of every output that the ledger names, as DVC keeps it."""
    assert_cache_is_sound(root)
    for version in data_versions(root).values():
        listing = json.loads(cached(root, version).read_text())
        assert all(cached(root, file["md5"]).exists() for file in listing)


def cached(root: Path, md5: str) -> Path:
    return root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def assert_versions_are_whole(*expected: str) -> None:
    """Just these versions are registered, and their files are where they say."""
    client = MlflowClient()
    for model in (TOKENIZER, ALTOLLM):
        versions = client.search_model_versions(f"name = '{model}'")
        assert {str(version.version) for version in versions} == set(expected)
        for version in versions:
            assert client.list_artifacts(version.run_id, "model"), f"{model} {version.version}"
