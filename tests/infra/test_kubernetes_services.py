"""The services of a deployment on Kubernetes, as kubectl renders them, and what they have to agree on with the code."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from orchestration.launching.kubernetes.api import ClusterApi
from orchestration.launching.kubernetes.launcher import KubernetesLauncher
from orchestration.launching.kubernetes.manifests import JOB_LABEL, job_manifest
from orchestration.launching.kubernetes.settings import read_settings
from tests.orchestration.launching.kubernetes_orders import TWO_NODES, order, settings
from tests.orchestration.launching.test_kubernetes_manifests import NEWEST
from tests.services.kubernetes import NAMESPACE, RESOURCE, fake_cluster

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "kubernetes"
OVERLAYS = ("services", "services_with_postgres")
VERBS = {"POST": "create", "DELETE": "delete"}

Manifest = dict[str, Any]


def rendered(overlay: str) -> list[Manifest]:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(FOLDER / overlay)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return list(yaml.safe_load_all(answer.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request):
    return rendered(request.param)


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] in kinds}


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    found = of_kind(manifests, "Deployment", "StatefulSet")
    return {name: manifest["spec"]["template"]["spec"] for name, manifest in found.items()}


def containers(manifests: list[Manifest]) -> list[Manifest]:
    return [
        container
        for pod in pods(manifests).values()
        for container in pod["containers"] + pod.get("initContainers", [])
    ]


@pytest.mark.parametrize("release", NEWEST)
def test_manifests_fit_the_schemas_of_three_releases(manifests, release):
    for manifest in manifests:
        kubernetes_validate.validate(manifest, release, strict=True)


def test_all_is_in_one_namespace(manifests):
    spaces = {
        manifest["metadata"].get("namespace") for manifest in manifests if manifest["kind"] != "Namespace"
    }
    assert spaces == {read_settings(ROOT).namespace}


def test_pods_meet_the_restricted_standard(manifests):
    (namespace,) = of_kind(manifests, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods(manifests).values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_images_are_pinned_by_tag(manifests):
    for container in containers(manifests):
        assert re.fullmatch(r"alto:cpu|postgres:\d+\.\d+-[a-z]+", container["image"])


def test_secrets_are_named_and_explained(manifests):
    assert not of_kind(manifests, "Secret")
    named = {
        source["secretRef"]["name"]
        for container in containers(manifests)
        for source in container.get("envFrom", [])
        if "secretRef" in source
    }
    explained = (ROOT / "docs" / "cluster.md").read_text()
    for name in named | set(read_settings(ROOT).secrets):
        assert f"`{name}`" in explained


def test_every_variable_that_dagster_needs_is_given(manifests):
    """By the ConfigMap, or by a Secret whose keys the documentation lists."""
    production = (ROOT / "infra" / "dagster" / "production.yaml").read_text()
    wanted = set(re.findall(r"\{env: (\w+)\}", production))
    assert wanted
    (given,) = [
        body["data"] for name, body in of_kind(manifests, "ConfigMap").items() if name.startswith("dagster-")
    ]
    explained = (ROOT / "docs" / "cluster.md").read_text()
    assert [name for name in wanted - given.keys() if f"`{name}`" not in explained] == []


def test_pages_are_on_loopback_and_no_service_leads_to_them(manifests):
    (webserver,) = pods(manifests)["webserver"]["containers"]
    assert webserver["command"][webserver["command"].index("--host") + 1] == "127.0.0.1"
    services = of_kind(manifests, "Service")
    assert "webserver" not in services
    assert all(service["spec"].get("type", "ClusterIP") == "ClusterIP" for service in services.values())
    assert not of_kind(manifests, "Ingress")


def test_nobody_gets_in_but_who_has_to(manifests):
    policies = of_kind(manifests, "NetworkPolicy")
    closed = policies["nobody-gets-in"]["spec"]
    assert (closed["podSelector"], closed.get("ingress")) == ({}, None)
    known = pods(manifests).keys()
    for policy in policies.values():
        for selector in selectors(policy):
            for expression in selector.get("matchExpressions", []):
                assert expression["key"] == JOB_LABEL or set(expression["values"]) <= known
            assert set(selector.get("matchLabels", {}).values()) <= known


def selectors(policy: Manifest) -> list[Manifest]:
    """Of a policy's own pods, and of those that may reach them; no addresses."""
    peers = [peer for rule in policy["spec"].get("ingress", []) for peer in rule["from"]]
    assert all(peer.keys() == {"podSelector"} for peer in peers)
    return [policy["spec"]["podSelector"], *(peer["podSelector"] for peer in peers)]


def test_jobs_find_the_account_and_the_work_tree_that_the_settings_name(manifests):
    site = read_settings(ROOT)
    assert site.service_account in of_kind(manifests, "ServiceAccount")
    assert {volume.claim for volume in site.volumes} <= of_kind(manifests, "PersistentVolumeClaim").keys()
    (code_location,) = pods(manifests)["code-location"]["containers"]
    mounted = {mount["mountPath"] for mount in code_location["volumeMounts"]}
    assert {str(volume.path) for volume in site.volumes} <= mounted


def test_pods_of_a_job_meet_by_the_service_of_the_settings(manifests, tmp_path):
    job = job_manifest(order(tmp_path, **TWO_NODES), settings(tmp_path), tmp_path)
    service = of_kind(manifests, "Service")[read_settings(ROOT).service]["spec"]
    assert service["selector"].items() <= job.spec.template.metadata.labels.items()
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"]  # they meet before they are ready


def test_only_the_launcher_may_ask_the_cluster(manifests):
    accounts = of_kind(manifests, "ServiceAccount")
    assert [name for name, body in accounts.items() if body.get("automountServiceAccountToken", True)] == [
        "alto-launcher"
    ]
    assert {
        name for name, pod in pods(manifests).items() if pod["serviceAccountName"] == "alto-launcher"
    } == {"code-location"}
    assert not of_kind(manifests, "ClusterRole", "ClusterRoleBinding")


def test_launcher_has_the_rights_that_it_uses_and_no_others(manifests, tmp_path):
    (role,) = of_kind(manifests, "Role").values()
    granted = {
        (verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert granted == rights_used(tmp_path)


def rights_used(root: Path) -> set[tuple[str, str]]:
    """By everything that a launcher does, with Jobs and with PyTorchJobs."""
    with fake_cluster() as cluster:
        cluster.put("services", {"metadata": {"name": "alto-jobs"}})
        for several_nodes in ("job", "pytorch_job"):
            chosen = settings(root, several_nodes=several_nodes)
            api = ClusterApi(cluster.api_client(), NAMESPACE, several_nodes == "pytorch_job")
            launcher = KubernetesLauncher(root, chosen, api)
            handle = launcher.submit(order(root, **TWO_NODES))
            launcher.status(handle)
            if several_nodes == "job":
                cluster.add_pods(handle.name, (0, 1))
                KubernetesLauncher(root, chosen, api).status(handle)
            launcher.find(handle.name)
            launcher.cancel(handle)
        return {right_of(request) for request in cluster.requests}


def right_of(request: str) -> tuple[str, str]:
    method, _, path = request.partition(" ")
    asked = RESOURCE.fullmatch(path)
    assert asked is not None
    verb = VERBS.get(method) or ("get" if asked["name"] else "list")
    return verb, asked["plural"] + (asked["log"] or "")
