"""A clean copy of this repository to run the lineage in, and the two doors into it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def copy_repository(target: Path, profile: str = "smoke") -> Path:
    """Copy what git tracks (and new files it does not ignore), as a repository of its own, with the profile set."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if name == "dvc.lock" or not (ROOT / name).exists():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)
    run(target, "-m", "orchestration.cli", "profile", profile)
    return target


def environment(root: Path) -> dict[str, str]:
    variables = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "DAGSTER_HOME": str(root / ".work" / "dagster"),
        "SHELL": "/bin/bash",
    }
    variables.pop("MLFLOW_TRACKING_URI", None)
    return variables


def run(
    root: Path, *arguments: str, check: bool = True, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in the project; fails with the output in the message."""
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment(root) | (variables or {}),
        capture_output=True,
        text=True,
    )
    if check and result.returncode:
        raise AssertionError(f"{arguments} ended with {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def repro(root: Path, *targets: str) -> list[str]:
    """`dvc repro`; returns the addresses it ran."""
    output = run(root, "-m", "dvc", "repro", *targets).stdout
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def materialize_everything(root: Path) -> None:
    """Materialize every address in Dagster, upstream first, in one process."""
    run(root, "-m", "tests.lineage.materialize")


def data_versions(root: Path) -> dict[str, str]:
    """Address -> hash of its recorded output."""
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    return {address: entry["outs"][0]["md5"] for address, entry in stages.items()}


def plan(root: Path) -> dict[str, str]:
    """Address -> what `alto plan` says of it."""
    words = {"runs": "runs", "restored": "restored", "runs_if_changed": "if", "does_not_run": "no"}
    rows = json.loads(run(root, "-m", "orchestration.cli", "plan", "--json").stdout)["rows"]
    return {row["address"]: words[row["plan"]] for row in rows}


def copy_without(root: Path, target: Path, stage: str) -> Path:
    """A copy of a project that `stage` (without partitions) is still to be run in; what it reads is recorded."""
    shutil.copytree(root, target, symlinks=True)
    lock = yaml.safe_load((target / "dvc.lock").read_text())
    if stage in lock["stages"]:
        shutil.rmtree(target / lock["stages"].pop(stage)["outs"][0]["path"])
    (target / "dvc.lock").write_text(yaml.safe_dump(lock))
    shutil.rmtree(
        target / ".dvc/cache/runs", ignore_errors=True
    )  # or the run cache restores what is to be run
    shutil.rmtree(target / ".work", ignore_errors=True)
    return target


def set_parameter(root: Path, section: str, name: str, value: object) -> None:
    path = root / "params.yaml"
    parameters = yaml.safe_load(path.read_text())
    assert name in parameters[section], f"{section}.{name} is no parameter"
    parameters[section][name] = value
    path.write_text(yaml.safe_dump(parameters, sort_keys=False))
