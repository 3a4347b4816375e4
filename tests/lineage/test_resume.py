"""`kill -9` of a training job, then the same door again: the weights of an uninterrupted run, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lineage.project import (
    copy_repository,
    copy_without,
    data_versions,
    environment,
    plan,
    run,
    set_parameter,
)

pytestmark = [pytest.mark.lineage, pytest.mark.slow]

STEPS, SAVE_EVERY = 400, 20


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copy_repository(tmp_path_factory.mktemp("resume") / "uninterrupted")
    set_parameter(root, "tokenizer_stage1", "steps", STEPS)
    set_parameter(root, "tokenizer_stage1", "save_every", SAVE_EVERY)
    run(root, "-m", "dvc", "repro", "tokenizer_stage1")
    return root


DOORS = {
    "dvc": ["-m", "dvc", "repro", "tokenizer_stage1"],
    "dagster": ["-m", "tests.lineage.materialize", "tokenizer_stage1"],
}


def training_process(parent: int, door: str) -> int | None:
    """Process id of the job below a door's process."""
    name = {"dvc": "jobs.tokenizer_stage1", "dagster": "jobs.runner.worker"}[door]
    import psutil

    for process in psutil.Process(parent).children(recursive=True):
        command = process.cmdline()
        if name in command and "python" in Path(command[0]).name:
            return process.pid
    return None


@pytest.mark.parametrize("door", sorted(DOORS))
def test_killed_training_resumes_to_the_same_weights(uninterrupted: Path, tmp_path: Path, door: str) -> None:
    root = copy_without(uninterrupted, tmp_path / door, "tokenizer_stage1")
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *DOORS[door]], cwd=root, env=environment(root), stdout=file, stderr=file
        )
    checkpoints = root / ".work" / "tokenizer_stage1"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("*/state/**/*.pt")):
        assert process.poll() is None, "the job ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job = training_process(process.pid, door)
    assert job is not None
    os.kill(job, signal.SIGKILL)
    status = process.wait(timeout=300)
    if door == "dvc":  # Dagster tries again by itself, in the same run
        assert status != 0
        assert plan(root)["tokenizer_stage1"] == "runs"
        assert list(checkpoints.glob("*/state/**/*.pt")), "the checkpoint survives the kill"
        resumed = run(root, *DOORS[door])
        log.write_text(resumed.stdout + resumed.stderr)
        status = resumed.returncode
    assert status == 0
    assert "going on after step" in log.read_text()
    assert data_versions(root)["tokenizer_stage1"] == data_versions(uninterrupted)["tokenizer_stage1"]
