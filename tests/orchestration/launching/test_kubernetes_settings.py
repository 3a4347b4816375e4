"""A site's settings for Kubernetes, and where its cluster is."""

import shutil
from pathlib import Path, PurePosixPath

import pytest
import yaml

from data_contracts.errors import InputError
from orchestration.launching.choice import launcher_named
from orchestration.launching.kubernetes.api import connect
from orchestration.launching.kubernetes.settings import read_settings

SHIPPED = Path(__file__).parents[3] / "infra" / "kubernetes" / "settings.yaml"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "infra" / "kubernetes").mkdir(parents=True)
    shutil.copy(SHIPPED, tmp_path / "infra" / "kubernetes")
    return tmp_path


def change(root, **changes):
    path = root / "infra" / "kubernetes" / "settings.yaml"
    values = yaml.safe_load(path.read_text())
    values["kubernetes"] |= changes
    path.write_text(yaml.safe_dump(values))


def test_shipped_settings_are_valid(root):
    assert read_settings(root).volumes[0].path == PurePosixPath("/work/alto")


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"gpu": 8}, "kubernetes.gpu: unknown parameter"),
        ({"namespace": "a/b"}, "kubernetes.namespace"),
        ({"image": "$(touch x)"}, "kubernetes.image"),
        ({"volumes": [{"claim": "work", "path": "../etc"}]}, "kubernetes.volumes.0.path"),
        ({"variables": {"A B": "1"}}, "kubernetes.variables.A B"),
        ({"secrets": ["../other"]}, "kubernetes.secrets.0"),
        ({"labels": {"alto": "a b"}}, "kubernetes.labels.alto"),
        ({"several_nodes": "mpi_job"}, "kubernetes.several_nodes"),
    ],
)
def test_wrong_setting_is_named(root, changes, wrong):
    change(root, **changes)
    with pytest.raises(InputError, match="infra/kubernetes/settings.yaml: ") as refused:
        read_settings(root)
    assert wrong in str(refused.value)


def test_cluster_is_the_one_of_the_kubeconfig(root, tmp_path, monkeypatch):
    cluster = {"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "training", "context": {"cluster": "a", "user": "me"}}
    user = {"name": "me", "user": {"token": "planted"}}
    kubeconfig = {"clusters": [cluster], "contexts": [context], "users": [user]}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig")
    )
    change(root, context="training")
    assert connect(read_settings(root)).configuration.host == "https://127.0.0.1:1"
    assert launcher_named("kubernetes", root).root == root
    change(root, context="other")
    with pytest.raises(InputError, match="no Kubernetes cluster: .*other"):
        launcher_named("kubernetes", root)


def test_without_a_cluster_the_launcher_says_so(root, tmp_path, monkeypatch):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InputError, match="no Kubernetes cluster: .*set KUBECONFIG"):
        launcher_named("kubernetes", root)
