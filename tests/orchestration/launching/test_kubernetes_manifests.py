"""What the launcher asks a cluster for, against the schemas of Kubernetes."""

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kubernetes import client

from data_contracts.errors import InputError
from jobs.runner.job_spec import Needs
from orchestration.launching.kubernetes.manifests import (
    job_manifest,
    pytorch_job_manifest,
)
from orchestration.launching.kubernetes.pods import literal
from tests.orchestration.launching.kubernetes_orders import TWO_NODES, order, settings

RELEASES = kubernetes_validate.utils.all_versions()
NEWEST = sorted(
    {kubernetes_validate.utils.major_minor(release) for release in RELEASES}, key=lambda v: int(v[2:])
)[-3:]
EVERY_SETTING = {
    "image_pull_secrets": ["registry"],
    "priority_class": "training",
    "runtime_class": "nvidia",
    "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}, {"key": "team", "value": "alto"}],
    "secrets": ["alto-s3", "alto-mlflow"],
    "variables": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
    "labels": {"kueue.x-k8s.io/queue-name": "training"},
    "annotations": {"team/contact": "alto@example.org"},
}


def serialized(manifest):
    return client.ApiClient().sanitize_for_serialization(manifest)


def single(root, changes=None, **order_changes):
    return serialized(job_manifest(order(root, **order_changes), settings(root, **(changes or {})), root))


def container_of(manifest):
    return manifest["spec"]["template"]["spec"]["containers"][0]


def variables_of(manifest):
    return {variable["name"]: variable.get("value") for variable in container_of(manifest)["env"]}


@pytest.mark.parametrize("release", NEWEST)
@pytest.mark.parametrize("changes", [{}, EVERY_SETTING], ids=["shortest", "every setting"])
def test_objects_fit_the_schemas_of_three_releases(tmp_path, release, changes):
    two = order(tmp_path, **TWO_NODES)
    chosen = settings(tmp_path, **changes)
    pytorch_job = pytorch_job_manifest(two, chosen, tmp_path)
    pods = [
        {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "x"},
            "template": replica["template"],
        }
        for replica in pytorch_job["spec"]["pytorchReplicaSpecs"].values()
    ]
    jobs = [single(tmp_path, changes), serialized(job_manifest(two, chosen, tmp_path))]
    for manifest in [*jobs, *pods]:
        kubernetes_validate.validate(manifest, release, strict=True)


def test_schemas_are_of_the_current_and_two_earlier_releases():
    minors = [int(version.split(".")[1]) for version in NEWEST]
    assert minors == [minors[-1] - 2, minors[-1] - 1, minors[-1]]


def test_needs_are_requests_and_limits(tmp_path):
    resources = container_of(single(tmp_path))["resources"]
    assert resources["limits"] == {"cpu": "64", "memory": "524288Mi", "nvidia.com/gpu": "8"}
    assert resources["requests"] == resources["limits"]


def test_stage_without_gpu_asks_for_none(tmp_path):
    manifest = single(tmp_path, needs=Needs(cpus=4, memory_gb=1.5), processes=1)
    assert container_of(manifest)["resources"]["limits"] == {"cpu": "4", "memory": "1536Mi"}


def test_time_limit_counts_from_the_start_of_the_pod_and_leaves_time_for_a_checkpoint(tmp_path):
    manifest = single(tmp_path, {"checkpoint_seconds": 240, "requeues": 3})
    pod = manifest["spec"]["template"]["spec"]
    assert pod["activeDeadlineSeconds"] == 48 * 3600
    assert pod["terminationGracePeriodSeconds"] == 240
    assert manifest["spec"]["activeDeadlineSeconds"] == 4 * 48 * 3600  # of all pods, one after the other


def test_processes_of_one_node_are_started_by_torchrun(tmp_path):
    manifest = single(tmp_path)
    work = order(tmp_path).spec.path
    worker = ["-m", "jobs.runner.worker", str(work)]
    torchrun = ["-m", "jobs.runner.torchrun", "--standalone", "--nproc-per-node", "8"]
    assert container_of(manifest)["command"] == ["python"]
    assert container_of(manifest)["args"] == torchrun + worker
    assert container_of(single(tmp_path, processes=1))["args"] == worker
    assert container_of(manifest)["workingDir"] == str(tmp_path)
    assert variables_of(manifest)["GIT_CONFIG_VALUE_0"] == str(tmp_path)


def test_pods_of_several_nodes_meet_at_the_first(tmp_path):
    two = order(tmp_path, **TWO_NODES)
    manifest = serialized(job_manifest(two, settings(tmp_path), tmp_path))
    assert manifest["spec"]["completionMode"] == "Indexed"
    assert manifest["spec"]["completions"] == manifest["spec"]["parallelism"] == 2
    variables = variables_of(manifest)
    first_pod, service = variables["PET_MASTER_ADDR"].split(".")
    assert first_pod == f"{two.name}-0"  # how an indexed Job names the host of its first pod
    assert service == manifest["spec"]["template"]["spec"]["subdomain"] == "alto-jobs"
    assert (variables["PET_NNODES"], variables["PET_NPROC_PER_NODE"]) == ("2", "8")
    index = next(v for v in container_of(manifest)["env"] if v["name"] == "PET_NODE_RANK")
    assert "job-completion-index" in index["valueFrom"]["fieldRef"]["fieldPath"]


def test_names_leave_room_for_what_the_cluster_appends(tmp_path):
    longest = order(tmp_path, stage="prepare_referring", partition="x" * 100)
    assert len(f"{longest.name}-worker-999") <= 63


def test_pytorch_job_has_the_fields_of_kubeflow_v1(tmp_path):
    manifest = pytorch_job_manifest(order(tmp_path, **TWO_NODES), settings(tmp_path), tmp_path)
    assert (manifest["apiVersion"], manifest["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert set(manifest["spec"]) == {"nprocPerNode", "runPolicy", "pytorchReplicaSpecs"}
    assert manifest["spec"]["nprocPerNode"] == "8"
    assert manifest["spec"]["runPolicy"].keys() <= {
        *("activeDeadlineSeconds", "backoffLimit", "cleanPodPolicy", "managedBy"),
        *("schedulingPolicy", "suspend", "ttlSecondsAfterFinished"),
    }
    replicas = manifest["spec"]["pytorchReplicaSpecs"]
    assert {name: replica["replicas"] for name, replica in replicas.items()} == {"Master": 1, "Worker": 1}
    for replica in replicas.values():
        assert replica.keys() == {"replicas", "restartPolicy", "template"}
        assert [container["name"] for container in replica["template"]["spec"]["containers"]] == ["pytorch"]


def rules_of(manifest):
    """What happens after a disruption, and after each exit status that a rule names."""
    disruption, *others = manifest["spec"]["podFailurePolicy"]["rules"]
    assert disruption["onPodConditions"][0]["type"] == "DisruptionTarget"
    by_status = {status: rule["action"] for rule in others for status in rule["onExitCodes"]["values"]}
    return {"disruption": disruption["action"], **by_status}


def test_disruption_is_no_failure_and_wrong_input_is_final(tmp_path):
    final = dict.fromkeys((2, 3, 77), "FailJob")
    assert rules_of(single(tmp_path)) == {"disruption": "Ignore", 75: "Ignore", **final}


def test_one_stopped_node_of_several_ends_the_job(tmp_path):
    manifest = serialized(
        job_manifest(order(tmp_path, **TWO_NODES), settings(tmp_path, restarts=3), tmp_path)
    )
    assert set(rules_of(manifest).values()) == {"FailJob"}
    assert manifest["spec"]["backoffLimit"] == 0


def test_pods_have_no_rights(tmp_path):
    pod = single(tmp_path)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    security = pod["containers"][0]["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_secrets_are_named_and_not_written_down(tmp_path):
    container = container_of(single(tmp_path, EVERY_SETTING))
    assert container["envFrom"] == [{"secretRef": {"name": name}} for name in ("alto-s3", "alto-mlflow")]


def test_job_is_found_by_what_it_makes(tmp_path):
    labels = single(tmp_path, stage="prepare_sa1b", partition="sa_000020-21.")["metadata"]["labels"]
    assert labels["alto/stage"] == "prepare_sa1b"
    assert labels["alto/partition"] == "sa_000020-21"
    assert labels["alto/fingerprint"] == "0123456789abcdef0123456789abcdef"
    annotations = single(tmp_path, partition="sa_000020-21.")["metadata"]["annotations"]
    assert annotations["alto/address"] == "tokenizer_stage1@sa_000020-21."


def test_labels_of_the_site_do_not_hide_ours(tmp_path):
    labels = single(tmp_path, {"labels": {"alto/stage": "other", "team": "a"}})["metadata"]["labels"]
    assert (labels["alto/stage"], labels["team"]) == ("tokenizer_stage1", "a")


def test_work_tree_that_no_volume_holds_is_refused(tmp_path):
    elsewhere = settings(tmp_path, volumes=[{"claim": "data", "path": "/data"}])
    with pytest.raises(InputError, match="no writable volume is mounted at or above"):
        job_manifest(order(tmp_path), elsewhere, tmp_path)
    staged = job_manifest(order(tmp_path, work_tree="staged"), elsewhere, tmp_path)
    assert staged.spec.template.spec.containers[0].working_dir is None


def test_kubernetes_puts_no_variable_into_a_value(tmp_path):
    manifest = serialized(
        job_manifest(order(tmp_path, {"GIVEN": "$(touch x);.."}), settings(tmp_path), tmp_path)
    )
    assert variables_of(manifest)["GIVEN"] == "$$(touch x);.."


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.text(alphabet="$()A ", max_size=12))
def test_what_kubernetes_makes_of_a_literal_is_the_text(text):
    assert expanded(literal(text), {"A": "!", "": "!"}) == text


def expanded(text, variables):
    """Kubernetes' rule: `$$` is `$`; `$(NAME)` is the variable, or stays where there is none."""
    result, position = "", 0
    while position < len(text):
        rest = text[position + 1 :]
        if text[position] == "$" and rest.startswith("$"):
            result, position = result + "$", position + 2
        elif text[position] == "$" and rest.startswith("(") and ")" in rest:
            name = rest[1 : rest.index(")")]
            result += variables.get(name, f"$({name})")
            position += len(name) + 3
        else:
            result, position = result + text[position], position + 1
    return result
