"""A project with the real runner and ledger, and jobs that take a moment: shards -> prepared -> model -> report.

Run as a script it is the command of the toy `dvc.yaml`: `python toy_project.py STAGE[@PARTITION]`.
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress
from jobs.runner.run import run_inside_dvc, run_stage
from jobs.runner.stage_lock import StageLock

REPOSITORY = Path(__file__).resolve().parents[3]
PARTITIONS = ("a", "b", "c")


def create(root: Path) -> Path:
    """Lay out the toy project at `root` (a git and DVC repository with hard links from the cache)."""
    root.mkdir(parents=True)
    command = f"{sys.executable} {Path(__file__).resolve()}"
    stages = {
        "prepare_sa1b": {
            "matrix": {"batch": list(PARTITIONS)},
            "cmd": f"{command} prepare_sa1b@${{item.batch}}",
            "deps": ["raw/${item.batch}.txt"],
            "params": ["prepare_sa1b", "seed"],
            "outs": ["data/toy/prepare_sa1b/${item.batch}"],
        },
        "tokenizer_stage1": {
            "cmd": f"{command} tokenizer_stage1",
            "deps": ["data/toy/prepare_sa1b"],
            "params": ["tokenizer_stage1", "seed"],
            "outs": ["models/toy/tokenizer_stage1"],
        },
        "tokenizer_benchmark": {
            "cmd": f"{command} tokenizer_benchmark",
            "deps": ["models/toy/tokenizer_stage1"],
            "params": ["seed"],
            "outs": ["reports/toy/tokenizer_benchmark"],
        },
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    set_parameters(root, {})
    (root / "raw").mkdir()
    for partition in PARTITIONS:
        (root / "raw" / f"{partition}.txt").write_text(f"raw {partition}\n")
    (root / ".gitignore").write_text("/data/\n/models/\n/reports/\n/.work/\n")
    for arguments in (["git", "init", "-q"], [*DVC, "init", "-q"]):
        subprocess.run(arguments, cwd=root, check=True)
    with (root / ".dvc" / "config").open("a") as config:
        config.write(
            "[core]\n    analytics = false\n    check_update = false\n[cache]\n    type = hardlink,copy\n"
        )
    return root


DVC = (sys.executable, "-m", "dvc")


def set_parameters(root: Path, changes: dict) -> None:
    parameters = {
        "profile": "toy",
        "seed": 1,
        "resources": {},
        "prepare_sa1b": {"suffix": "prepared", "seconds": 0.0},
        "tokenizer_stage1": {"round_to": 10, "seconds": 0.0},
    }
    for stage, values in changes.items():
        parameters[stage] = {**parameters[stage], **values}
    (root / "params.yaml").write_text(yaml.safe_dump(parameters))


def toy_job(spec: JobSpec, lock: StageLock) -> None:
    """Deterministic output from inputs and parameters; every run leaves a line in `.work/runs`."""
    root = spec.work.parents[1 if spec.partition is None else 2].parent
    with (root / ".work" / "runs").open("a") as file:
        file.write(f"{spec.address}\n")
    spec.staging.mkdir(parents=True, exist_ok=True)
    time.sleep(spec.parameters.get("seconds", 0.0))
    text = expected_text(root, spec.address, spec.parameters)
    (spec.staging / "result.txt").write_text(text)


def expected_text(root: Path, address: StageAddress, parameters: dict) -> str:
    if address.stage == "prepare_sa1b":
        return (root / "raw" / f"{address.partition}.txt").read_text() + parameters["suffix"]
    if address.stage == "tokenizer_stage1":
        texts = [(root / f"data/toy/prepare_sa1b/{p}/result.txt").read_text() for p in PARTITIONS]
        return f"model of {len(''.join(texts)) // parameters['round_to']} tens of characters"
    return "report on " + (root / "models/toy/tokenizer_stage1/result.txt").read_text()


def dvc(root: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*DVC, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=check
    )


def other_door(root: Path, address: str) -> None:
    """What Dagster's asset does: the runner with the ledger, no DVC process."""
    run_stage(root, StageAddress.parse(address), toy_job)


def runs(root: Path) -> list[str]:
    path = root / ".work" / "runs"
    return path.read_text().split() if path.exists() else []


def assert_cache_is_sound(root: Path) -> None:
    """Re-hash every cached file: its name is the MD5 of its content."""
    files = [path for path in (root / ".dvc/cache/files/md5").rglob("*") if path.is_file()]
    assert files
    for path in files:
        name = (path.parent.name + path.name).removesuffix(".dir")
        assert hashlib.md5(path.read_bytes()).hexdigest() == name, f"cache object {name} has other content"


if __name__ == "__main__":
    run_inside_dvc(Path.cwd(), StageAddress.parse(sys.argv[1]), toy_job)
