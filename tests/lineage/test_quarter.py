"""Thirteen weeks with stand-ins for the jobs: what runs, what is said, and who is champion."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from mlflow.exceptions import MlflowException

from jobs.runner import registry
from jobs.runner.staleness import lineage_state
from orchestration import definitions as code_location
from tests.jobs.test_benchmark import run_benchmark
from tests.lineage import quarter as quarters
from tests.lineage.quarter import BROKEN, Quarter, Week, World

pytestmark = pytest.mark.slow
TRAINING = {"tokenizer_stage1", "tokenizer_stage1_5", "mask_tokens", "altollm_sft", "altollm_grpo"}
NOTHING = "nothing changed since the last retraining"


@pytest.fixture
def quarter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Quarter]:
    root = tmp_path / "project"
    quarters.create(root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    world = World(answers=run_benchmark(tmp_path / "measured", images=20))
    monkeypatch.setattr(code_location, "StageLauncher", lambda: world)
    monkeypatch.setattr(
        registry, "package_segmenter", lambda altollm, tokenizer, to: shutil.copytree(altollm, to)
    )
    with dg.instance_for_test() as instance:
        quarter = Quarter(root, instance, world)
        quarters.prepare_data(quarter)
        yield quarter


def test_a_quarter(quarter: Quarter, monkeypatch: pytest.MonkeyPatch) -> None:
    world = quarter.world
    weeks: list[Week] = []

    def week(shard: bytes | None = None, iou: float | None = None, diverges: bool = False) -> Week:
        if shard is not None:
            quarter.add_shard(shard)
        world.iou, world.diverges = iou or world.iou, diverges
        weeks.append(quarter.go_on())
        return weeks[-1]

    first = week(iou=0.9)
    assert set(first.ran) >= TRAINING
    assert "has never run" in first.said
    assert first.champion == "1"

    assert week() == Week(ran=[], said=NOTHING, champion="1", failed=[])

    with monkeypatch.context() as patch:
        patch.setattr(registry, "use_project_store", unreachable)
        better = week(b"second", iou=0.97)
    assert better.ran[:2] == ["acquire_sa1b@batch_001", "prepare_sa1b@batch_001"]
    assert set(better.ran) >= TRAINING
    assert "prepare_sa1b@batch_001 is new" in better.said
    assert (better.failed, better.champion) == (["reporting"], "1")
    assert week() == Week(ran=[], said=NOTHING, champion="2", failed=[])  # the report alone is tried again

    broken = week(BROKEN)
    assert broken.ran == ["acquire_sa1b@batch_002", "prepare_sa1b@batch_002"]
    assert broken.failed == ["sa1b_data"]
    left_out = f"{NOTHING}; left out, as it was never prepared: prepare_sa1b@batch_002"
    assert broken.said == left_out
    assert week() == Week(ran=[], said=left_out, champion="2", failed=[])  # what a check refused is not

    diverged = week(b"third", iou=0.6, diverges=True)
    assert diverged.failed == ["retraining"]
    assert "altollm_grpo" not in diverged.ran
    worse = week()
    assert worse.ran[0] == "altollm_sft"  # the tokenizer of last week is up to date
    assert (worse.failed, worse.champion) == ([], "2")
    assert week().said == left_out

    last = week(b"fourth", iou=0.99)
    assert set(last.ran) >= TRAINING
    # However good: not while a listed batch was never prepared.
    assert (last.failed, last.champion) == ([], "2")
    for _ in range(3):
        assert week() == Week(ran=[], said=left_out, champion="2", failed=[])

    assert len(weeks) == 13
    stale = {str(state.address) for state in lineage_state(quarter.root) if state.plan == "runs"}
    assert stale == {"prepare_sa1b@batch_002"}


def unreachable(root: Path) -> None:
    raise MlflowException("the server does not answer")
