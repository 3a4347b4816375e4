"""The jobs of ALToLLM started by hand in each of the ways docs/training.md names: the same training."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lineage.project import (
    copy_repository,
    copy_without,
    data_versions,
    environment,
    run,
    set_parameter,
)

pytestmark = [pytest.mark.lineage, pytest.mark.slow, pytest.mark.timeout(2400)]

STAGES = ("altollm_sft", "altollm_grpo")
LAUNCHERS = {
    "torchrun": "torchrun --standalone --nproc-per-node 2 -m jobs.{stage}",
    "deepspeed": "deepspeed --num_accelerators 2 --module jobs.{stage}",
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "altollm_sft": {
        "steps": 12,
        "save_every": 4,
        "images_per_step": 4,
        "optimizer": "adamw",
        "training": {"precision": "fp32", "images_per_pass": 1, "deepspeed": "zero2"},
    },
    "altollm_grpo": {
        "steps": 4,
        "prompts_per_step": 4,
        "group_size": 4,
        # Near chance, an untrained model says something well-formed now and then, and so earns something.
        "temperature": 5.0,
        "top_k": None,
        "training": {"precision": "fp32", "prompts_per_pass": 1, "deepspeed": "zero3"},
    },
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages run by `python -m`, in one process."""
    root = copy_repository(tmp_path_factory.mktemp("launchers") / "alone")
    for stage, parameters in PARAMETERS.items():
        for name, value in parameters.items():
            set_parameter(root, stage, name, value)
    run(root, "-m", "dvc", "repro", "mask_tokens", "base_weights")
    for stage in STAGES:
        run(root, "-m", f"jobs.{stage}")
    return root


def curve(root: Path, stage: str) -> dict[int, dict[str, float]]:
    lines = (root / ".work" / stage / "last_run" / "metrics.jsonl").read_text().splitlines()
    return {point.pop("step"): point for point in map(json.loads, lines)}


def assert_same_training(one: Path, other: Path, stage: str) -> None:
    first, second = curve(one, stage), curve(other, stage)
    assert first.keys() == second.keys()
    assert max(first) == PARAMETERS[stage]["steps"]
    assert any(point["gradient_norm"] > 0 for point in first.values())
    for step, point in first.items():
        assert second[step] == pytest.approx(point, rel=1e-3, abs=1e-3)
    figures, found = (
        json.loads((root / f"models/smoke/{stage}/report.json").read_text())["figures"]
        for root in (one, other)
    )
    assert found == pytest.approx(figures, abs=1e-2)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_launchers_train_what_a_single_process_trains(
    alone: Path, tmp_path: Path, launcher: str, stage: str
) -> None:
    root = copy_without(alone, tmp_path / "project", stage)
    finished = subprocess.run(
        LAUNCHERS[launcher].format(stage=stage).split(),
        cwd=root,
        env=environment(root) | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{stage}: ran" in finished.stdout
    assert_same_training(alone, root, stage)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_job_started_again_ends_like_an_uninterrupted_one(
    alone: Path, tmp_path: Path, stage: str
) -> None:
    root = copy_without(alone, tmp_path / "project", stage)
    command = [sys.executable, "-m", f"jobs.{stage}"]
    job = subprocess.Popen(command, cwd=root, env=environment(root), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((root / ".work" / stage).glob("*/state/latest.json")):
        assert job.poll() is None, "the job ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert stage not in data_versions(root)
    again = run(root, "-m", f"jobs.{stage}")
    assert "going on after step" in again.stderr
    assert data_versions(root)[stage] == data_versions(alone)[stage]
    assert curve(root, stage) == curve(alone, stage)
