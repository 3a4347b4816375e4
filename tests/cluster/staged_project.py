"""A small project in git whose jobs share no work tree: batches of numbers -> their sums, with checkpoints.

`prepare_sa1b@<batch>` writes numbers, `mask_tokens` adds them up one by one and keeps a checkpoint after each. The
project's `jobs` package holds these two and takes the runner from the repository under test.
"""

import hashlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import yaml

from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import Ledger, Recorded
from jobs.runner.run import run_stage
from jobs.runner.stage_lock import StageLock
from orchestration.launching.choice import launcher_for
from orchestration.launching.interface import JobOrder
from orchestration.launching.watch import live_job, run_job

PACKAGE = """
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
"""
MAIN = """
if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("STAGE")
"""
PREPARE = """
from jobs.runner.context import JobConfig, StageContext, StageReport

class Config(JobConfig):
    numbers: int = 5

def run(config: Config, context: StageContext) -> StageReport:
    numbers = [str(int(context.partition[-3:]) + n) for n in range(config.numbers)]
    (context.output / "numbers.txt").write_text(" ".join(numbers))
    print("wrote", len(numbers), "numbers")
    return StageReport(figures={"numbers": len(numbers)})
""" + MAIN.replace("STAGE", "prepare_sa1b")
ADD = """
import os
import time
from pathlib import Path

from data_contracts.errors import InputError
from jobs.runner.context import Check, JobConfig, StageContext, StageReport

class Config(JobConfig):
    seconds: float = 0.0
    limit: float = 1e9
    wait_at: int = -1

def run(config: Config, context: StageContext) -> StageReport:
    files = sorted(context.inputs["prepare_sa1b"].glob("*/numbers.txt"))
    numbers = [int(each) for file in files for each in file.read_text().split()]
    checkpoint, total, start = context.work / "checkpoint.txt", 0, 0
    if checkpoint.exists():
        start, total = map(int, checkpoint.read_text().split())
        print("going on after", start, flush=True)
    for done in range(start, len(numbers)):
        if numbers[done] > config.limit:
            raise InputError(f"number {numbers[done]} is too large")
        total += numbers[done]
        partial = context.work / ".checkpoint"
        partial.write_text(f"{done + 1} {total}")
        partial.replace(checkpoint)
        context.log_metrics(done + 1, total=total)
        print("added", done + 1, flush=True)
        while done + 1 == config.wait_at and start == 0:
            time.sleep(0.05)
    (context.output / "total.txt").write_text(str(total))
    print("secret seen:", "AWS_SECRET_ACCESS_KEY" in os.environ)
    check = Check(name="small", passed=total < 1000, reason=f"the total is {total}", blocking=True)
    return StageReport(figures={"total": total}, checks=(check,))
""" + MAIN.replace("STAGE", "mask_tokens")


def create(root: Path, exchange: str, remote: str, batches: int = 2, endpoint: str | None = None) -> Path:
    """The project, committed, with its DVC remote."""
    (root / "jobs").mkdir(parents=True)
    for name, text in {"__init__": PACKAGE, "prepare_sa1b": PREPARE, "mask_tokens": ADD}.items():
        (root / "jobs" / f"{name}.py").write_text(text.lstrip())
    stages = {
        "prepare_sa1b": {
            "matrix": {"batch": "${sa1b.batches}"},
            "cmd": f"{sys.executable} -m jobs.prepare_sa1b --partition ${{item.batch}}",
            "deps": ["jobs/prepare_sa1b.py"],
            "params": ["prepare_sa1b", "seed"],
            "outs": ["data/toy/prepare_sa1b/${item.batch}"],
        },
        "mask_tokens": {
            "cmd": f"{sys.executable} -m jobs.mask_tokens",
            "deps": ["data/toy/prepare_sa1b", "jobs/mask_tokens.py"],
            "params": ["mask_tokens", "seed"],
            "outs": ["data/toy/mask_tokens"],
        },
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"vars": ["partitions.yaml"], "stages": stages}))
    names = [f"batch_{number:03d}" for number in range(batches)]
    (root / "partitions.yaml").write_text(yaml.safe_dump({"sa1b": {"batches": names}}))
    parameters = {
        "profile": "toy",
        "seed": 1,
        "resources": {"work_tree": "staged"},
        "prepare_sa1b": {"numbers": 5},
        "mask_tokens": {"seconds": 0.0},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(parameters))
    settings = root / "infra" / "staging" / "settings.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(yaml.safe_dump({"exchange": exchange}))
    (root / ".gitignore").write_text("/data/\n/.work/\n__pycache__/\n")
    (root / ".dvc").mkdir()
    (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    lines = f"""\
        [core]
            analytics = false
            check_update = false
            remote = storage
        ['remote "storage"']
            url = {remote}
        """
    text = textwrap.dedent(lines) + (f"    endpointurl = {endpoint}\n" if endpoint else "")
    (root / ".dvc" / "config").write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    commit(root)
    return root


def commit(root: Path) -> None:
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "as it is"], cwd=root, check=True)


def set_parameters(root: Path, section: str, **values: object) -> None:
    parameters = yaml.safe_load((root / "params.yaml").read_text())
    parameters[section] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(parameters))
    commit(root)


def run_staged(root: Path, address: str, said: list[str] | None = None) -> Recorded:
    """The stage run as Dagster's asset runs it."""

    def launch(spec: JobSpec, lock: StageLock) -> None:
        run_its_job(root, spec, lock, [] if said is None else said)

    return run_stage(root, StageAddress.parse(address), launch)


def launched(root: Path, address: str) -> JobSpec:
    """The stage's job run to its end, and its result not recorded."""
    where = StageAddress.parse(address)
    with StageLock(root, where) as lock:
        spec = Ledger(root).begin(where, lock)
        assert isinstance(spec, JobSpec)
        spec.write()
        run_its_job(root, spec, lock, [])
    return spec


def run_its_job(root: Path, spec: JobSpec, lock: StageLock, said: list[str]) -> None:
    launcher = launcher_for(spec, root)
    live = live_job(launcher, spec)
    run_job(launcher, JobOrder.of(spec, {}, lock.fileno()), live, said.append)


def put(remote: Path, content: bytes, name: str | None = None) -> str:
    """An object in a DVC remote that is a folder; returns its name, the hash of the content."""
    name = name or hashlib.md5(content).hexdigest()
    path = remote / "files" / "md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name


def put_listing(remote: Path, files: list[dict[str, str]]) -> str:
    content = json.dumps(files).encode()
    return put(remote, content, f"{hashlib.md5(content).hexdigest()}.dir")
