"""The lineage on Slurm through Dagster, with nothing shared but a bucket. Needs what test_slurm.py needs, SeaweedFS."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.project import change, cluster_project
from tests.cluster.staged_project import commit
from tests.jobs.acquisition.object_store import SECRET_KEY
from tests.jobs.tokenizer_example import ROOT
from tests.lineage.project import data_versions, environment, plan, repro, run
from tests.lineage.remotes import add_remote, files_with
from tests.services.slurm import Slurm, slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DATA = (
    "acquire_sa1b@batch_000",
    "acquire_sa1b@batch_001",
    "prepare_sa1b@batch_000",
    "prepare_sa1b@batch_001",
)
TRAINING = "tokenizer_stage1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    with slurm() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", started.environment["SLURM_CONF"])
        yield started


@pytest.fixture(scope="module")
def project(cluster: Slurm, store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nodes find the runner where this repository is, and everything else in the clone they make."""
    folder = tmp_path_factory.mktemp("staged")
    (folder / "node").mkdir()
    needs = {"default": {"cpus": 1, "memory_gb": 2, "hours": 1}}
    variables = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "node"), "AWS_EC2_METADATA_DISABLED": "true"}
    root = cluster_project(
        folder / "project", {"work_tree": "staged", "needs": needs}, {"variables": variables}
    )
    add_remote(root, "s3://storage/lineage", store)
    settings = {"exchange": "s3://storage/jobs", "repository": None}
    (root / "infra/staging/settings.yaml").write_text(yaml.safe_dump(settings))
    # Long enough to be seen while it runs.
    change(root / "params.yaml", TRAINING, {"steps": 100, "save_every": 50})
    commit(root)
    return root


def test_dagster_shows_and_records_what_was_made_elsewhere(project: Path, cluster: Slurm) -> None:
    command = [sys.executable, "-m", "tests.lineage.materialize", "base_weights", *DATA, TRAINING]
    log = project.parent / "materialize.log"
    seen_while_running = False
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=project, env=environment(project), stdout=file, stderr=file)
        while process.poll() is None:
            shown = re.search(r"Training stage 1: +\d+%", log.read_text())
            names = cluster.command("squeue", "-h", "-t", "RUNNING", "-o", "%j")
            seen_while_running |= bool(shown and "tokenizer-stage1" in names)
            time.sleep(0.2)
    printed = log.read_text()
    assert process.returncode == 0, printed
    assert seen_while_running
    assert "check training_health passed: " in printed  # through Dagster Pipes
    last_run = json.loads((project / ".work" / TRAINING / "last_run" / "last_run.json").read_text())
    assert last_run["mlflow_run_id"]  # sent from here: nodes know of no MLflow

    assert set(data_versions(project)) == {"base_weights", *DATA, TRAINING}
    assert not (project / "data").exists()
    assert not (project / "models").exists()
    assert set(cluster.jobs().values()) == {"COMPLETED"}
    assert repro(project, "--allow-missing", TRAINING) == []
    assert {plan(project)[address] for address in ("base_weights", *DATA, TRAINING)} == {"no"}
    checks = json.loads(run(project, "-m", "tests.lineage.check_state", TRAINING).stdout.splitlines()[-1])
    assert checks["training_health"] is True
    state = json.loads(run(project, "-m", "tests.lineage.dagster_state").stdout.splitlines()[-1])
    recorded = data_versions(project)
    assert {address: state[address] for address in recorded} == {
        address: [version, "FRESH"] for address, version in recorded.items()
    }
    assert files_with(project, SECRET_KEY) == []
    assert SECRET_KEY not in printed
    assert not list((project.parent / "node").glob("alto-*"))  # no clone is left


def test_the_whole_lineage_is_made_elsewhere(project: Path, cluster: Slurm) -> None:
    """The stages before are up to date; what follows is pulled, trained, measured and pushed by the nodes."""
    run(project, "-m", "tests.lineage.materialize")
    assert {"altollm_grpo", "benchmark_report"} <= set(data_versions(project))
    assert set(plan(project).values()) == {"no"}
    assert repro(project, "--allow-missing") == []
    assert [name for name in ("data", "models", "reports") if (project / name).exists()] == []
    assert set(cluster.jobs().values()) == {"COMPLETED"}
