"""A small project whose training counts: each step adds its number, the checkpoint is the sum so far.

The project's `jobs` package holds the stages and takes the runner from the repository under test. `mask_tokens` trains
without MLflow, `tokenizer_stage1` with it, `altollm_sft` in two processes. What goes wrong meanwhile is said by the
variable ALTO_TEST_FAULT of the job: `memory` (not to be had) or `disk` (full), at step 10.
"""

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.cluster.staged_project import PACKAGE, commit
from tests.services.slurm import Slurm

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("mask_tokens", "tokenizer_stage1", "altollm_sft")
FOLDERS = {"mask_tokens": "data", "tokenizer_stage1": "models", "altollm_sft": "models"}
STEPS = 60
SECONDS = 300  # that anything may take on a busy machine
TRAIN = """
import json
import os
import resource
import time
from pathlib import Path

from data_contracts.errors import JobStopped
from jobs.runner.context import JobConfig, StageContext, StageReport
from jobs.runner.processes import launched_processes, launched_rank

class Config(JobConfig):
    steps: int
    seconds: float
    endpoint: str | None = None
    images_per_step: int = 1

def run(config: Config, context: StageContext) -> StageReport:
    checkpoint = context.work / "checkpoint.json"
    done, total = json.loads(checkpoint.read_text()) if checkpoint.exists() else (0, 0)
    print(f"life begins after step {done}, process {launched_rank()} is {os.getpid()}", flush=True)
    stop = context.stop
    if launched_processes() > 1:
        from alto_models.training.stopping import AgreedStop
        stop = AgreedStop(context.stop)
    with context.stop.deferred():
        while done < config.steps:
            time.sleep(config.seconds)
            if launched_processes() > 1:
                import torch
                torch.distributed.barrier()
            if config.endpoint is not None:
                read_object(config.endpoint)
            total, done = total + done, done + 1
            if done == 10:
                meet(os.environ.get("ALTO_TEST_FAULT"), context.work)
            stopping = done < config.steps and stop()
            if (done % 5 == 0 or stopping) and launched_rank() == 0:
                save(checkpoint, (done, total))
                context.log_metrics(done, loss=1 / done)
            if stopping:
                raise JobStopped(f"asked to stop: checkpoint saved after step {done}")
    (context.output / "total.txt").write_text(str(total))
    return StageReport(figures={"total": total})

def save(path: Path, state: tuple[int, int]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(state))
    partial.replace(path)

def meet(fault: str | None, work: Path) -> None:
    if fault == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        bytearray(2**32)
    if fault == "disk":
        (work / "large.partial").write_bytes(bytes(2**26))

def read_object(endpoint: str) -> None:
    import boto3
    from botocore.config import Config as Client
    quick = Client(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=1)
    boto3.client("s3", endpoint_url=endpoint, config=quick).get_object(Bucket="storage", Key="object")["Body"].read()
"""


class Project:
    """The project in the folder `root`, its services and logs beside it.

    environment: that lets it reach its launcher.
    """

    def __init__(
        self, root: Path, launcher: str = "local", environment: dict[str, str] | None = None
    ) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            **(environment or {}),
            "PYTHONPATH": f"{root}:{REPOSITORY}",
            "DAGSTER_HOME": str(root.parent / "dagster"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{root.parent / 'mlflow.db'}",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        (root / "jobs").mkdir(parents=True, exist_ok=True)
        (root / "jobs" / "__init__.py").write_text(PACKAGE.lstrip())
        for stage in STAGES:
            (root / "jobs" / f"{stage}.py").write_text(TRAIN.lstrip())
        stages = {
            stage: {
                "cmd": f"{sys.executable} -m jobs.runner {stage}",
                "deps": [f"jobs/{stage}.py"],
                "params": [stage, "seed"],
                "outs": [f"{FOLDERS[stage]}/toy/{stage}"],
            }
            for stage in STAGES
        }
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        (root / "partitions.yaml").write_text("{}\n")
        self.parameters: dict[str, Any] = {"profile": "toy", "seed": 1}
        self.parameters["resources"] = {
            "launcher": launcher,
            "processes": {"altollm_sft": 2},
            "needs": {"default": {"memory_gb": 1.0, "hours": 0.5}},
        }
        self.parameters |= {stage: {"steps": STEPS, "seconds": 0.03} for stage in STAGES}
        self.parameters["altollm_sft"]["images_per_step"] = 2
        self.set()
        settings = root / "infra" / "slurm" / "settings.yaml"
        settings.parent.mkdir(parents=True)
        passed = ["PYTHONPATH", "PATH", "MLFLOW_TRACKING_URI"]
        slurm = {"seconds_between_looks": 0.3, "warning_seconds": 50, "pass_environment": passed}
        settings.write_text(yaml.safe_dump({"slurm": slurm}))
        (root / ".gitignore").write_text("/data/\n/models/\n/.work/\n__pycache__/\n*.log\n")
        (root / ".dvc").mkdir()
        (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
        (root.parent / "dagster").mkdir()
        (root.parent / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        commit(root)

    def set(self, stage: str | None = None, **values: object) -> None:
        if stage is not None:
            self.parameters[stage] |= values
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.parameters))

    def materialize(self, stage: str, name: str = "run", **environment: str) -> "Run":
        return Run(self, stage, self.root.parent / f"{name}.log", environment)

    def recorded(self, stage: str) -> str | None:
        """Data version in DVC's ledger."""
        lock = self.root / "dvc.lock"
        entries = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
        return entries[stage]["outs"][0]["md5"] if stage in entries else None

    def total(self, stage: str) -> int:
        return int((self.root / FOLDERS[stage] / "toy" / stage / "total.txt").read_text())

    def work(self, stage: str) -> Path:
        """Of the job that is there."""
        (record,) = (self.root / ".work" / stage).glob("*/job.json")
        return record.parent

    def checkpoint(self, stage: str) -> int:
        """Steps done in it; 0 before the first."""
        found = list((self.root / ".work" / stage).glob("*/state/checkpoint.json"))
        return json.loads(found[0].read_text())[0] if found else 0

    def run_statuses(self) -> list[str]:
        """Of Dagster's runs, as Dagster keeps them; asking Dagster itself takes seconds each time."""
        with sqlite3.connect(self.root.parent / "dagster/history/runs.db") as runs:
            return [str(row[0]) for row in runs.execute("select status from runs order by id")]

    def mlflow_runs(self) -> list[Any]:
        from mlflow import MlflowClient

        client = MlflowClient(self.environment["MLFLOW_TRACKING_URI"])
        experiment = client.get_experiment_by_name("alto-toy")
        return client.search_runs([experiment.experiment_id])


class Run:
    """A Dagster run that materializes one stage, in a process of its own (tests/cluster/dagster_run.py)."""

    def __init__(self, project: Project, stage: str, log: Path, environment: dict[str, str]) -> None:
        self.project = project
        self.stage = stage
        self.log_file = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.dagster_run", stage],
                cwd=project.root,
                env={**project.environment, **environment},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Fails with the log where it takes too long, or the run is over before."""
        wait_until(lambda: condition() or self.process.poll() is not None, what)
        assert condition(), f"ended before {what}\n{self.log}"

    def until_step(self, step: int) -> "Run":
        """Until its checkpoint has come so far."""
        self.wait_for(lambda: self.project.checkpoint(self.stage) >= step, f"step {step}")
        return self

    def job_processes(self) -> list[int]:
        """Of the first process of the job, and the others: process ids, by rank."""
        text = (self.project.work(self.stage) / "job.log").read_text()
        last = {line.split()[6]: int(line.split()[-1]) for line in text.splitlines() if "life begins" in line}
        return [last[rank] for rank in sorted(last)]

    def lives(self) -> list[int]:
        """After how many steps each of the job's lives began."""
        began = re.findall(r"life begins after step (\d+), process 0 is (\d+)", self.log)
        return [
            int(step) for step, _ in dict.fromkeys(began)
        ]  # the end of a log is shown again with a failure

    def succeeds(self) -> "Run":
        assert self.process.wait(SECONDS) == 0, self.log
        assert self.project.recorded(self.stage) is not None
        assert self.project.total(self.stage) == sum(range(STEPS))
        return self

    def fails(self) -> str:
        """Its log; nothing is recorded."""
        assert self.process.wait(SECONDS) != 0, self.log
        assert self.project.recorded(self.stage) is None
        return self.log

    def cancel(self) -> None:
        """As Dagster's button does."""
        (self.project.root / "cancel").touch()

    def status(self) -> str:
        """Of the newest Dagster run."""
        return self.project.run_statuses()[-1]


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.02)


def slurm_states(cluster: Slurm, project: Project, stage: str) -> list[str]:
    """Of the jobs of a stage that the controller remembers."""
    lines = cluster.command("squeue", "-h", "-t", "all", "-o", "%k %T").splitlines()
    work = str(project.root / ".work" / stage)
    return [line.split()[-1] for line in lines if line.startswith(work)]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
