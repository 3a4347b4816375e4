"""Jobs on Kubernetes through both doors: a fake cluster takes what the launcher submits and runs its containers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from jobs.runner.verdict import is_finished
from orchestration.launching.interface import JobOrder
from orchestration.launching.kubernetes.api import ClusterApi
from orchestration.launching.kubernetes.launcher import KubernetesLauncher
from orchestration.launching.watch import run_job
from tests.cluster import staged_project
from tests.cluster.project import change
from tests.jobs.acquisition.object_store import free_ports
from tests.jobs.stage_processes import written
from tests.jobs.tokenizer_example import ROOT, write_prepared_masks
from tests.lineage.project import copy_repository, data_versions, run
from tests.orchestration.launching.kubernetes_orders import settings
from tests.services.kubernetes import NAMESPACE, FakeCluster
from tests.services.kubernetes_node import cluster_with_nodes, kubeconfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[FakeCluster]:
    with cluster_with_nodes() as started:
        started.put("services", {"metadata": {"name": "alto-jobs"}})
        yield started


@pytest.fixture(scope="module")
def project(cluster: FakeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Profile `smoke`, every stage a job on the cluster that the kubeconfig names."""
    folder = tmp_path_factory.mktemp("kubernetes")
    root = copy_repository(folder / "project")
    change(root / "params.yaml", "resources", {"launcher": "kubernetes"})
    volumes = [{"claim": "alto-work", "path": str(root)}]
    site = {"volumes": volumes, "variables": {}, "seconds_between_looks": 0.2}
    change(root / "infra/kubernetes/settings.yaml", "kubernetes", site)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig(cluster, folder / "kubeconfig")))
        yield root


def test_dvc_repro_runs_a_stage_on_the_cluster(cluster: FakeCluster, project: Path) -> None:
    printed = run(project, "-m", "dvc", "repro", "base_weights")
    assert "submitted alto-smoke-base-weights-" in printed.stdout + printed.stderr
    assert "base_weights" in data_versions(project)
    assert [job["metadata"]["labels"]["alto/stage"] for job in cluster.kind("jobs").values()] == [
        "base_weights"
    ]


def test_dagster_runs_a_stage_on_the_cluster(cluster: FakeCluster, project: Path) -> None:
    run(project, "-m", "tests.lineage.materialize", "acquire_sa1b@batch_000")
    assert "acquire_sa1b@batch_000" in data_versions(project)
    stages = {job["metadata"]["labels"]["alto/stage"] for job in cluster.kind("jobs").values()}
    assert "acquire_sa1b" in stages


def test_stage_whose_pod_sees_no_work_tree(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = staged_project.create(tmp_path / "project", str(tmp_path / "exchange"), str(tmp_path / "remote"))
    site = {"namespace": NAMESPACE, "image": "alto:cpu", "seconds_between_looks": 0.2}
    (root / "infra" / "kubernetes").mkdir()
    (root / "infra" / "kubernetes" / "settings.yaml").write_text(yaml.safe_dump({"kubernetes": site}))
    staged_project.set_parameters(root, "resources", launcher="kubernetes")
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION",
        str(kubeconfig(cluster, tmp_path / "kubeconfig")),
    )
    assert staged_project.run_staged(root, "prepare_sa1b@batch_000").how == "ran"
    assert "prepare_sa1b@batch_000" in data_versions(root)
    assert capfd.readouterr().out.count("wrote 5 numbers") == 1  # the log came one way only


def test_two_nodes_train(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.launching.kubernetes.pods.RENDEZVOUS_PORT", free_ports(1)[0])
    prepared = write_prepared_masks(tmp_path / "prepared")
    changes = {"steps": 3, "health": {"max_loss_ratio": 10.0, "min_codebook_usage": 0.0}}
    spec = written("tokenizer_stage1", tmp_path / "work", {"prepare_sa1b": prepared}, 1, changes)
    spec = spec.model_copy(update={"needs": spec.needs.model_copy(update={"nodes": 2})})
    spec.write()
    site = settings(ROOT, seconds_between_looks=0.2)
    launcher = KubernetesLauncher(ROOT, site, ClusterApi(cluster.api_client(), NAMESPACE, False))
    said: list[str] = []
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    run_job(launcher, JobOrder.of(spec, store), None, said.append)
    assert is_finished(spec)
    assert any("running node-0,node-1" in line for line in said)
