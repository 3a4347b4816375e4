"""Training of the tokenizer in two processes, started by torchrun as a person or the runner starts it."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.runner.job_spec import JobSpec
from jobs.runner.processes import launch_command
from jobs.runner.verdict import StoppedEarly, raise_verdict
from tests.jobs.stage_processes import curve, environment, stopped_in_training, train, written
from tests.jobs.tokenizer_example import write_prepared_masks

STEPS = 20
CHANGES: dict[str, Any] = {
    "steps": STEPS,
    "save_every": 5,
    "crops": {"crops_per_step": 4, "masks_per_crop": 2},
    # Without the quantiser: rounding tips the choice of a code now and then, and with it what follows.
    # (tests/alto_models/tokenizer/test_stage1_training.py compares all phases, in float64.)
    "objective": {"images_from": 0.2, "quantize_from": 1.0, "shorten_from": 0.5},
    "health": {"max_loss_ratio": 10.0, "min_codebook_usage": 0.0},
}


def job(folder: Path, processes: int, changes: dict[str, Any] = CHANGES) -> JobSpec:
    prepared = folder.parent / "prepared"
    if not prepared.exists():
        write_prepared_masks(prepared, train=12)
    return written("tokenizer_stage1", folder, {"prepare_sa1b": prepared}, processes, changes)


def assert_same_training(one: JobSpec, other: JobSpec) -> None:
    first, second = curve(one), curve(other)
    assert first.keys() == second.keys()
    assert STEPS in first
    for step, point in first.items():
        # Rounding shows in these first: where a feature hardly varies, normalising enlarges it.
        for name in ("gradient_norm", "common_part"):
            assert second[step].pop(name) == pytest.approx(point.pop(name), rel=1e-2)
        assert second[step] == pytest.approx(point, rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> JobSpec:
    spec = job(tmp_path_factory.mktemp("training") / "single", processes=1)
    finished = train(spec)
    assert finished.returncode == 0, finished.stderr
    return spec


@pytest.mark.slow
def test_two_processes_train_like_one(single: JobSpec) -> None:
    spec = job(single.work.parent / "two", processes=2)
    finished = train(spec)
    assert finished.returncode == 0, finished.stderr
    assert_same_training(single, spec)
    assert not list(spec.work.glob("process_*"))


@pytest.mark.slow
def test_a_killed_run_of_two_processes_goes_on_as_one(single: JobSpec) -> None:
    two = job(single.work.parent / "killed", processes=2)
    process = subprocess.Popen(
        launch_command(two), env=environment(two.work), stderr=subprocess.DEVNULL, start_new_session=True
    )
    checkpoint = two.state / "training_state.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # torchrun only: its processes have sessions of their own
    process.wait()
    assert checkpoint.exists()
    assert not (two.staging / "model.safetensors").exists()
    one = job(two.work, processes=1)
    finished = train(one)
    assert finished.returncode == 0, finished.stderr
    assert "going on after step" in finished.stderr
    assert_same_training(single, one)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_asked_to_stop_goes_on_as_if_nothing_had_been(single: JobSpec, processes: int) -> None:
    spec = job(single.work.parent / f"stopped_{processes}", processes)
    stopped = stopped_in_training(spec)
    assert "asked to stop: checkpoint saved after step" in stopped
    assert not (spec.staging / "report.json").exists()
    with pytest.raises(StoppedEarly, match=r"tokenizer_stage1: asked to stop.*run again"):
        raise_verdict(spec, "ended")
    finished = train(spec)
    assert finished.returncode == 0, finished.stderr
    assert "going on after step" in finished.stderr
    assert_same_training(single, spec)
    if processes == 1:
        assert (spec.staging / "model.safetensors").read_bytes() == (
            single.staging / "model.safetensors"
        ).read_bytes()


@pytest.mark.slow
def test_crops_that_cannot_be_shared_out_are_named(single: JobSpec) -> None:
    spec = job(single.work.parent / "odd", processes=2, changes=CHANGES | {"crops": {"crops_per_step": 3}})
    finished = train(spec)
    assert finished.returncode != 0
    assert "error: 3 samples a step cannot be shared out evenly over 2 processes" in finished.stderr
