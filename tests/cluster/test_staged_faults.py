"""What goes wrong around a job on Slurm that shares nothing with us but a bucket."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.runner.exchange import open_exchange
from tests.cluster.staged_project import commit
from tests.cluster.staged_training import StagedProject
from tests.cluster.training_project import STEPS, slurm_states
from tests.jobs.acquisition.object_store import ObjectStore
from tests.services.slurm import Slurm, slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS_AWAY = 30.0
POINTS = list(range(5, STEPS + 1, 5))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    with slurm() as started:
        yield started


@pytest.fixture
def project(tmp_path: Path, cluster: Slurm, object_store: ObjectStore) -> StagedProject:
    return StagedProject(tmp_path / "project", cluster, object_store)


def test_object_storage_is_away_for_30_seconds(
    project: StagedProject,
    tmp_path_factory: pytest.TempPathFactory,
    cluster: Slurm,
    object_store: ObjectStore,
) -> None:
    """One job trains, ends and has to push meanwhile, another one is to be submitted."""
    other = StagedProject(tmp_path_factory.mktemp("other") / "project", cluster, object_store)
    project.set("tokenizer_stage1", seconds=0.2)
    commit(project.root)
    run = project.materialize("tokenizer_stage1").until_step(10)
    object_store.kill()
    gone = time.monotonic()
    try:
        submitted = other.materialize("mask_tokens")
        run.wait_for(
            lambda: "pushing tokenizer_stage1" in project.log_on_the_node(), "the end of the training"
        )
        run.wait_for(lambda: time.monotonic() - gone > SECONDS_AWAY, "the store's return")
    finally:
        object_store.start()
    run.succeeds()
    submitted.succeeds()
    assert [run.lives(), submitted.lives()] == [[0], [0]]
    assert [run.status(), submitted.status()] == ["SUCCESS"] * 2
    assert project.curve("tokenizer_stage1") == POINTS
    assert slurm_states(cluster, project, "tokenizer_stage1") == ["COMPLETED"]
    (one,) = project.mlflow_runs()
    assert one.info.status == "FINISHED"
    assert one.data.metrics["total"] == sum(range(STEPS))


def test_a_requeued_job_goes_on_from_the_checkpoint_in_the_bucket(
    project: StagedProject, cluster: Slurm
) -> None:
    project.set("tokenizer_stage1", seconds=0.1)
    commit(project.root)
    run = project.materialize("tokenizer_stage1").until_step(5)
    exchange = open_exchange(project.exchange)
    run.wait_for(lambda: any(name.endswith("state/index.json") for name in exchange.names()), "a checkpoint")
    (number,) = re.findall(r"submitted \S+ \((\d+)\)", run.log)
    cluster.command("scontrol", "requeue", number)
    run.succeeds()
    first, second = run.lives()
    assert first == 0
    assert second >= 5
    assert project.curve("tokenizer_stage1")[-1] == STEPS
    assert run.status() == "SUCCESS"
    assert slurm_states(cluster, project, "tokenizer_stage1") == ["COMPLETED"]
    (one,) = project.mlflow_runs()
    assert one.info.status == "FINISHED"
    assert one.data.metrics["total"] == sum(range(STEPS))


def test_wrong_credentials_on_a_node_are_one_line(project: StagedProject, cluster: Slurm) -> None:
    """Such a job can give back nothing but its exit status."""
    variables = {"PYTHONPATH": str(Path(__file__).parents[2]), "AWS_SECRET_ACCESS_KEY": "of-somebody-else"}
    project.set_site(variables=variables)
    commit(project.root)
    log = project.materialize("mask_tokens").fails()
    said = "mask_tokens: the job could not use its exchange (ended FAILED on n1: NonZeroExitCode). Its node needs"
    assert said in log, log
    assert "Trying again" not in log
