"""Stages run as jobs of their own, in one process or several, as the runner starts them."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from jobs.runner.job_spec import JobSpec
from jobs.runner.processes import launch_command
from jobs.runner.stopping import STATUS_STOPPED
from tests.jobs.runner.specs import job_spec
from tests.jobs.tokenizer_example import SEED, merged, parameters


def written(
    stage: str, folder: Path, inputs: dict[str, Path], processes: int, changes: dict[str, Any]
) -> JobSpec:
    """A job of profile `smoke` with some parameters changed, ready to be started."""
    merged_parameters = merged(parameters(stage), changes)
    spec = job_spec(
        stage, folder, parameters=merged_parameters, seed=SEED, processes=processes, inputs=inputs
    )
    spec.write()
    return spec


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "OMP_NUM_THREADS": "1"}


def train(spec: JobSpec) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        launch_command(spec),
        env=environment(spec.work),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def stopped_in_training(spec: JobSpec) -> str:
    """Start the job, ask it to stop once it has saved a checkpoint, see that it does, and give what it said."""
    with (spec.work / "job.log").open("wb") as log:
        process = subprocess.Popen(launch_command(spec), env=environment(spec.work), stderr=log)
    deadline = time.monotonic() + 120
    while not (spec.state / "training_state.pt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == STATUS_STOPPED, (spec.work / "job.log").read_text()
    return (spec.work / "job.log").read_text()


def curve(spec: JobSpec) -> dict[int, dict[str, float]]:
    points = [json.loads(line) for line in (spec.state / "metrics.jsonl").read_text().splitlines()]
    return {point.pop("step"): point for point in points}
