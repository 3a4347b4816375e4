"""From an order to the object of the cluster: a Job, an indexed Job, or a Kubeflow PyTorchJob."""

import hashlib
from pathlib import Path
from typing import Any

from kubernetes import client

from jobs.runner.stopping import STATUS_STOPPED
from jobs.runner.verdict import STATUS_CHECK_FAILED, STATUS_NO_EXCHANGE, STATUS_WRONG_INPUT
from orchestration.launching.interface import JobOrder
from orchestration.launching.kubernetes.pods import pod_template, rendezvous_variables, seconds
from orchestration.launching.kubernetes.settings import KubernetesSettings

CONTAINER = "job"
PYTORCH_CONTAINER = "pytorch"  # the name that the Kubeflow operator looks for
PYTORCH_JOB = ("kubeflow.org", "v1", "pytorchjobs")

JOB_LABEL, WORK_TREE_LABEL = "alto/job", "alto/work-tree"
WORK_ANNOTATION = "alto/work"


def work_tree_label(root: Path) -> str:
    """Tells the jobs of this work tree from those of others in the namespace."""
    return hashlib.md5(str(root).encode()).hexdigest()[:12]


def job_manifest(order: JobOrder, settings: KubernetesSettings, root: Path) -> client.V1Job:
    """A Job of one pod, or an indexed one of a pod for each node, which end together."""
    nodes = order.spec.needs.nodes
    template = _template(order, settings, root, CONTAINER)
    if nodes > 1:
        template.spec.subdomain = settings.service
        template.spec.containers[0].env += rendezvous_variables(order, settings)
    return client.V1Job(
        api_version="batch/v1",
        kind="Job",
        metadata=_metadata(order, settings, root),
        spec=client.V1JobSpec(
            completions=nodes,
            parallelism=nodes,
            completion_mode="Indexed" if nodes > 1 else "NonIndexed",
            backoff_limit=settings.restarts if nodes == 1 else 0,
            active_deadline_seconds=seconds(order.spec.needs.hours) * (1 + settings.requeues),
            pod_failure_policy=_pod_failure_policy(nodes),
            pod_replacement_policy="Failed",  # never two pods that write the same checkpoints
            ttl_seconds_after_finished=seconds(settings.keep_hours),
            template=template,
        ),
    )


def _pod_failure_policy(nodes: int) -> client.V1PodFailurePolicy:
    """A pod that was disrupted or asked to stop is replaced and goes on from its checkpoint. Where several work
    together, all have to begin again: the job ends as pre-empted, and whoever watches it submits it anew."""
    disrupted = client.V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
    stopped = _ended_with(STATUS_STOPPED)
    final = _ended_with(STATUS_WRONG_INPUT, STATUS_CHECK_FAILED, STATUS_NO_EXCHANGE)
    go_on = "Ignore" if nodes == 1 else "FailJob"
    return client.V1PodFailurePolicy(
        rules=[
            client.V1PodFailurePolicyRule(action=go_on, on_pod_conditions=[disrupted]),
            client.V1PodFailurePolicyRule(action=go_on, on_exit_codes=stopped),
            client.V1PodFailurePolicyRule(action="FailJob", on_exit_codes=final),
        ]
    )


def _ended_with(*statuses: int) -> client.V1PodFailurePolicyOnExitCodesRequirement:
    return client.V1PodFailurePolicyOnExitCodesRequirement(
        container_name=CONTAINER, operator="In", values=list(statuses)
    )


def pytorch_job_manifest(order: JobOrder, settings: KubernetesSettings, root: Path) -> dict[str, Any]:
    """A Kubeflow PyTorchJob (training operator v1); the operator tells torchrun where its pods meet."""
    serialized = client.ApiClient().sanitize_for_serialization
    template = serialized(_template(order, settings, root, PYTORCH_CONTAINER))
    group, version, _ = PYTORCH_JOB
    replicas = {"Master": 1, "Worker": order.spec.needs.nodes - 1}
    return {
        "apiVersion": f"{group}/{version}",
        "kind": "PyTorchJob",
        "metadata": serialized(_metadata(order, settings, root)),
        "spec": {
            "nprocPerNode": str(order.spec.processes),
            "runPolicy": {
                "cleanPodPolicy": "Running",
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": seconds(settings.keep_hours),
            },
            "pytorchReplicaSpecs": {
                name: {"replicas": count, "restartPolicy": "Never", "template": template}
                for name, count in replicas.items()
            },
        },
    }


def _metadata(order: JobOrder, settings: KubernetesSettings, root: Path) -> client.V1ObjectMeta:
    """What a job is found and recognised by."""
    spec = order.spec
    labels = {
        "app.kubernetes.io/part-of": "alto",
        "app.kubernetes.io/component": "job",
        JOB_LABEL: order.name,
        WORK_TREE_LABEL: work_tree_label(root),
        "alto/profile": spec.profile,
        "alto/stage": spec.stage,
        "alto/fingerprint": spec.fingerprint,
    }
    if spec.partition:
        # A label is shorter than a partition's key may be; the annotation has all of it.
        labels["alto/partition"] = spec.partition[:63].rstrip("_.-")
    annotations = {WORK_ANNOTATION: str(spec.work), "alto/address": str(spec.address)}
    return client.V1ObjectMeta(
        name=order.name,
        namespace=settings.namespace,
        labels={**settings.labels, **labels},
        annotations={**settings.annotations, **annotations},
    )


def _template(
    order: JobOrder, settings: KubernetesSettings, root: Path, container: str
) -> client.V1PodTemplateSpec:
    found_by = _metadata(order, settings, root)
    metadata = client.V1ObjectMeta(labels=found_by.labels, annotations=found_by.annotations)
    return pod_template(order, settings, root, metadata, container)
