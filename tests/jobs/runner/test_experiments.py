"""What an experiment of DVC leaves, and that nothing of it is registered before it is committed."""

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_contracts.errors import InputError
from jobs.runner.context import StageReport
from jobs.runner.experiments import Experiment, committed_versions, lasting_root, running_experiment
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import Recorded
from jobs.runner.lineage import Lineage, read_lineage
from jobs.runner.registry import refuse_experiment, source_run
from jobs.runner.staleness import StageState
from jobs.runner.tracking import outbox_of, send_kept, tracked_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

GRPO = StageAddress("altollm_grpo")
GRAPH = """
stages:
  altollm_sft: {cmd: make, outs: [models/smoke/altollm_sft]}
  altollm_grpo: {cmd: make, deps: [models/smoke/altollm_sft], outs: [models/smoke/altollm_grpo]}
"""
LEDGER = "stages:\n  altollm_sft:\n    outs: [{md5: version of altollm_sft}]\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def root(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with two stages, and a commit."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "params.yaml").write_text("profile: smoke\n")
    (tmp_path / "partitions.yaml").write_text("{}\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    commit(tmp_path, "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commit(root: Path, *names: str) -> None:
    settings = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for command in (["add", *names], [*settings, "commit", "-qm", "state"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def client() -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient()


def run_job(root: Path, fingerprint: str, stage: str, experiment: Experiment | None) -> JobSpec:
    spec = JobSpec(
        stage=stage,
        partition=None,
        partition_items=(),
        profile="smoke",
        fingerprint=fingerprint,
        parameters={},
        seed=1,
        inputs={},
        input_hashes={},
        experiment=experiment,
        work=root / ".work" / stage / fingerprint,
    )
    spec.write()
    spec.staging.mkdir()
    (spec.staging / "report.json").write_text("{}")
    with tracked_run(spec) as tracker:
        tracker.log_result(StageReport(figures={"giou": 0.5}), spec.staging)
    return spec


def state(stage: str, fingerprint: str) -> StageState:
    made = Recorded(
        address=StageAddress(stage),
        data_version=f"version of {stage}",
        entry_hash="e",
        how="unchanged",
        fingerprint=fingerprint,
    )
    return StageState(address=made.address, plan="does_not_run", recorded=made, input_versions={})


def register(lineage: Lineage, *states: StageState) -> None:
    refuse_experiment(client(), lineage, states, GRPO)


EXPERIMENT = Experiment(name="tall-tree", baseline="b" * 40)


@pytest.mark.parametrize("below", ["tmpabc", "standalone/tmpabc"])
def test_a_copy_knows_the_project_it_is_of(tmp_path: Path, below: str) -> None:
    assert lasting_root(tmp_path / ".dvc/tmp/exps" / below) == tmp_path
    assert lasting_root(tmp_path) == tmp_path
    assert lasting_root(tmp_path / ".dvc/tmp/other") == tmp_path / ".dvc/tmp/other"


def test_dvc_says_which_experiment_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", EXPERIMENT.baseline)
    assert running_experiment() is None
    monkeypatch.setenv("DVC_EXP_NAME", EXPERIMENT.name)
    assert running_experiment() == EXPERIMENT


def test_runs_say_which_experiment_they_are_of(root: Path) -> None:
    of_experiment = outbox_of(run_job(root, "t1", "altollm_sft", EXPERIMENT)).run
    of_pipeline = outbox_of(run_job(root, "t2", "altollm_sft", None)).run
    assert of_experiment is not None
    assert of_pipeline is not None
    assert of_experiment.experiment_id == of_pipeline.experiment_id
    tags = client().get_run(of_experiment.run_id).data.tags
    assert (tags["experiment"], tags["baseline_commit"]) == ("tall-tree", "b" * 40)
    assert "experiment" not in client().get_run(of_pipeline.run_id).data.tags


def test_what_an_experiment_made_is_registered_once_it_is_committed(root: Path) -> None:
    lineage = read_lineage(root)
    run_job(root, "a1", "altollm_sft", EXPERIMENT)
    run_job(root, "a2", "altollm_grpo", None)
    states = state("altollm_sft", "a1"), state("altollm_grpo", "a2")
    with pytest.raises(InputError, match="experiment tall-tree made altollm_sft"):
        register(lineage, *states)
    (root / "dvc.lock").write_text(LEDGER)
    with pytest.raises(InputError, match="tall-tree"):
        register(lineage, *states)
    commit(root, "dvc.lock")
    assert committed_versions(root) == {"altollm_sft": "version of altollm_sft"}
    register(lineage, *states)


def test_what_the_pipeline_made_too_is_registered(root: Path, tmp_path: Path) -> None:
    run_job(tmp_path / "experiment", "p1", "altollm_grpo", EXPERIMENT)
    with pytest.raises(InputError, match="tall-tree"):
        register(read_lineage(root), state("altollm_grpo", "p1"))
    run_job(tmp_path / "pipeline", "p1", "altollm_grpo", None)
    register(read_lineage(root), state("altollm_grpo", "p1"))


def test_what_was_made_without_mlflow_is_registered(root: Path) -> None:
    register(read_lineage(root), state("altollm_sft", "n1"), state("altollm_grpo", "n2"))


def test_a_version_is_of_the_run_that_made_it_whatever_ran_last(root: Path) -> None:
    wanted = outbox_of(run_job(root, "s1", "altollm_grpo", None)).run
    run_job(root, "s2", "altollm_grpo", None)
    made = state("altollm_grpo", "s1").recorded
    assert made is not None
    assert wanted is not None
    assert source_run(client(), root, made, "smoke").info.run_id == wanted.run_id


def test_what_a_copy_could_not_send_is_kept_in_the_project(
    root: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = root / ".dvc/tmp/exps/tmpabc"
    copy.mkdir(parents=True)
    (copy / "dvc.yaml").write_text(GRAPH)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    spec = run_job(copy, "c1", "altollm_sft", EXPERIMENT)
    assert outbox_of(spec).run is None
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert send_kept(root) == ["altollm_sft"]
    assert send_kept(root) == []
    with pytest.raises(InputError, match="tall-tree"):
        register(read_lineage(root), state("altollm_sft", "c1"))
