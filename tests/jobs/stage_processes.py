"""Stages run as jobs of their own, in one process or several, as the runner starts them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from jobs.runner.job_spec import JobSpec
from jobs.runner.processes import launch_command
from tests.jobs.tokenizer_example import SEED, merged, parameters


def written(
    stage: str, folder: Path, inputs: dict[str, Path], processes: int, changes: dict[str, Any]
) -> JobSpec:
    """A job of profile `smoke` with some parameters changed, ready to be started."""
    spec = JobSpec(
        stage=stage,
        partition=None,
        partition_items=(),
        profile="smoke",
        fingerprint="0" * 32,
        parameters=merged(parameters(stage), changes),
        seed=SEED,
        processes=processes,
        inputs=inputs,
        input_hashes={},
        work=folder,
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


def curve(spec: JobSpec) -> dict[int, dict[str, float]]:
    points = [json.loads(line) for line in (spec.state / "metrics.jsonl").read_text().splitlines()]
    return {point.pop("step"): point for point in points}
