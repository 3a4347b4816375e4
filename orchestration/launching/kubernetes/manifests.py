"""From an order to the objects of the cluster: a Job, an indexed Job with its Service, or a Kubeflow PyTorchJob."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubernetes import client

from data_contracts.errors import InputError
from jobs.runner.stopping import STATUS_STOPPED
from orchestration.launching.interface import JobOrder
from orchestration.launching.kubernetes.settings import KubernetesSettings

CONTAINER = "job"
PYTORCH_CONTAINER = "pytorch"  # the name that the Kubeflow operator looks for
RENDEZVOUS_PORT = 29500
SECONDS_TO_MEET = 1800  # that the pods of a job may start apart
NO_RETRY = (2, 3)  # wrong input, failed check
PYTORCH_JOB = ("kubeflow.org", "v1", "pytorchjobs")

JOB_LABEL, WORK_TREE_LABEL = "alto/job", "alto/work-tree"
WORK_ANNOTATION = "alto/work"


def work_tree_label(root: Path) -> str:
    """Tells the jobs of this work tree from those of others in the namespace."""
    return hashlib.md5(str(root).encode()).hexdigest()[:12]


def job_manifest(order: JobOrder, settings: KubernetesSettings, root: Path) -> client.V1Job:
    """A Job of one pod, or an indexed one of a pod for each node, which end together."""
    nodes = order.spec.needs.nodes
    template = _pod_template(order, settings, root, CONTAINER)
    if nodes > 1:
        template.spec.subdomain = order.name
        template.spec.containers[0].env += _rendezvous(order, settings)
    return client.V1Job(
        api_version="batch/v1",
        kind="Job",
        metadata=_metadata(order, settings, root),
        spec=client.V1JobSpec(
            completions=nodes,
            parallelism=nodes,
            completion_mode="Indexed" if nodes > 1 else "NonIndexed",
            backoff_limit=settings.restarts if nodes == 1 else 0,
            active_deadline_seconds=_seconds(order.spec.needs.hours) * (1 + settings.requeues),
            pod_failure_policy=_pod_failure_policy(nodes),
            pod_replacement_policy="Failed",  # never two pods that write the same checkpoints
            ttl_seconds_after_finished=_seconds(settings.keep_hours),
            template=template,
        ),
    )


def _pod_failure_policy(nodes: int) -> client.V1PodFailurePolicy:
    """A pod that was disrupted or asked to stop is replaced and goes on from its checkpoint. Where several work
    together, all have to begin again: the job ends as pre-empted, and whoever watches it submits it anew."""
    disrupted = client.V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
    go_on = "Ignore" if nodes == 1 else "FailJob"
    return client.V1PodFailurePolicy(
        rules=[
            client.V1PodFailurePolicyRule(action=go_on, on_pod_conditions=[disrupted]),
            client.V1PodFailurePolicyRule(action=go_on, on_exit_codes=_ended_with(STATUS_STOPPED)),
            client.V1PodFailurePolicyRule(action="FailJob", on_exit_codes=_ended_with(*NO_RETRY)),
        ]
    )


def _ended_with(*statuses: int) -> client.V1PodFailurePolicyOnExitCodesRequirement:
    return client.V1PodFailurePolicyOnExitCodesRequirement(
        container_name=CONTAINER, operator="In", values=list(statuses)
    )


def rendezvous_service(order: JobOrder, settings: KubernetesSettings, job: client.V1Job) -> client.V1Service:
    """Gives the pods of an indexed Job names, also before they are ready; goes when the Job goes."""
    owner = client.V1OwnerReference(
        api_version="batch/v1",
        kind="Job",
        name=job.metadata.name,
        uid=job.metadata.uid,
        block_owner_deletion=True,  # so that the next job of this name does not meet it
    )
    return client.V1Service(
        api_version="v1",
        kind="Service",
        metadata=client.V1ObjectMeta(
            name=order.name,
            namespace=settings.namespace,
            labels=job.metadata.labels,
            owner_references=[owner],
        ),
        spec=client.V1ServiceSpec(
            cluster_ip="None",
            publish_not_ready_addresses=True,
            selector={JOB_LABEL: order.name},
            ports=[client.V1ServicePort(name="rendezvous", port=RENDEZVOUS_PORT)],
        ),
    )


def pytorch_job_manifest(order: JobOrder, settings: KubernetesSettings, root: Path) -> dict[str, Any]:
    """A Kubeflow PyTorchJob (training operator v1); the operator tells torchrun where its pods meet."""
    serialized = client.ApiClient().sanitize_for_serialization
    template = serialized(_pod_template(order, settings, root, PYTORCH_CONTAINER))
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
                "ttlSecondsAfterFinished": _seconds(settings.keep_hours),
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


def _pod_template(
    order: JobOrder, settings: KubernetesSettings, root: Path, container: str
) -> client.V1PodTemplateSpec:
    metadata = _metadata(order, settings, root)
    return client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=metadata.labels, annotations=metadata.annotations),
        spec=client.V1PodSpec(
            restart_policy="Never",
            service_account_name=settings.service_account,
            automount_service_account_token=False,
            enable_service_links=False,
            priority_class_name=settings.priority_class,
            runtime_class_name=settings.runtime_class,
            node_selector=settings.node_selector or None,
            tolerations=[
                client.V1Toleration(
                    key=toleration.key,
                    operator="Exists" if toleration.value is None else "Equal",
                    value=toleration.value,
                    effect=toleration.effect,
                )
                for toleration in settings.tolerations
            ],
            image_pull_secrets=[
                client.V1LocalObjectReference(name=name) for name in settings.image_pull_secrets
            ],
            # Of each pod, from when it runs; that of the Job counts the time in the queue and of all its pods.
            active_deadline_seconds=_seconds(order.spec.needs.hours),
            termination_grace_period_seconds=settings.checkpoint_seconds,
            security_context=client.V1PodSecurityContext(
                run_as_non_root=True,
                run_as_user=settings.user_id,
                run_as_group=settings.group_id,
                fs_group=settings.group_id,
                fs_group_change_policy="OnRootMismatch",
                seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault"),
            ),
            containers=[_container(order, settings, root, container)],
            volumes=_volumes(settings),
        ),
    )


def _container(order: JobOrder, settings: KubernetesSettings, root: Path, name: str) -> client.V1Container:
    needs = order.spec.needs
    amounts = {"cpu": str(needs.cpus), "memory": f"{int(needs.memory_gb * 1024)}Mi"}
    if needs.gpus:
        amounts[settings.gpu_resource] = str(needs.gpus)
    shared = order.spec.work_tree == "shared"
    variables = {
        "HOME": "/tmp",
        **(_trusted_by_git(root) if shared else {}),
        **({"PET_RDZV_CONF": f"timeout={SECONDS_TO_MEET}"} if needs.nodes > 1 else {}),
        **settings.variables,
        **order.environment,
    }
    return client.V1Container(
        name=name,
        image=settings.image,
        image_pull_policy=settings.image_pull_policy,
        command=["python"],
        args=[_literal(argument) for argument in _python_arguments(order)],
        working_dir=str(root) if shared else None,
        env=[client.V1EnvVar(name=key, value=_literal(value)) for key, value in sorted(variables.items())],
        env_from=[
            client.V1EnvFromSource(secret_ref=client.V1SecretEnvSource(name=secret))
            for secret in settings.secrets
        ],
        resources=client.V1ResourceRequirements(limits=amounts, requests=amounts),
        security_context=client.V1SecurityContext(
            allow_privilege_escalation=False,
            privileged=False,
            read_only_root_filesystem=True,
            capabilities=client.V1Capabilities(drop=["ALL"]),
        ),
        volume_mounts=_mounts(order, settings, root),
    )


def _trusted_by_git(root: Path) -> dict[str, str]:
    """Git asks for this where the volume belongs to another user than the job's."""
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": str(root)}


def _python_arguments(order: JobOrder) -> list[str]:
    """torchrun where the job has several processes; on several nodes the environment tells it where they meet."""
    torchrun = ["-m", "jobs.runner.torchrun"]
    if order.spec.needs.nodes > 1:
        return [*torchrun, *order.worker]
    if order.spec.processes > 1:
        return [*torchrun, "--standalone", "--nproc-per-node", str(order.spec.processes), *order.worker]
    return list(order.worker)


def _rendezvous(order: JobOrder, settings: KubernetesSettings) -> list[client.V1EnvVar]:
    """Options of torchrun, which reads each from PET_<OPTION>; the names that Kubeflow's operator uses, too."""
    index = client.V1ObjectFieldSelector(
        field_path="metadata.annotations['batch.kubernetes.io/job-completion-index']"
    )
    options: Mapping[str, object] = {
        "PET_NNODES": order.spec.needs.nodes,
        "PET_NPROC_PER_NODE": order.spec.processes,
        "PET_MASTER_ADDR": f"{order.name}-0.{order.name}",
        "PET_MASTER_PORT": RENDEZVOUS_PORT,
    }
    return [
        client.V1EnvVar(name="PET_NODE_RANK", value_from=client.V1EnvVarSource(field_ref=index)),
        *(client.V1EnvVar(name=name, value=str(value)) for name, value in options.items()),
    ]


def _volumes(settings: KubernetesSettings) -> list[client.V1Volume]:
    empty = client.V1EmptyDirVolumeSource
    claims = sorted({volume.claim for volume in settings.volumes})
    return [
        client.V1Volume(
            name="shared-memory",
            empty_dir=empty(medium="Memory", size_limit=f"{int(settings.shared_memory_gb * 1024)}Mi"),
        ),
        client.V1Volume(name="scratch", empty_dir=empty(size_limit=f"{int(settings.scratch_gb * 1024)}Mi")),
        *(
            client.V1Volume(
                name=_volume_name(claim),
                persistent_volume_claim=client.V1PersistentVolumeClaimVolumeSource(claim_name=claim),
            )
            for claim in claims
        ),
    ]


def _mounts(order: JobOrder, settings: KubernetesSettings, root: Path) -> list[client.V1VolumeMount]:
    """Raises InputError where the job would not see its work tree."""
    if order.spec.work_tree == "shared" and not any(
        root.is_relative_to(volume.path) and not volume.read_only for volume in settings.volumes
    ):
        raise InputError(
            f"infra/kubernetes/settings.yaml: no writable volume is mounted at or above the work tree {root}:"
            " add it to volumes, or set resources.work_tree to staged"
        )
    return [
        client.V1VolumeMount(name="shared-memory", mount_path="/dev/shm"),
        client.V1VolumeMount(name="scratch", mount_path="/tmp", sub_path="tmp"),
        client.V1VolumeMount(name="scratch", mount_path="/var/tmp", sub_path="var-tmp"),
        *(
            client.V1VolumeMount(
                name=_volume_name(volume.claim),
                mount_path=str(volume.path),
                sub_path=volume.sub_path,
                read_only=volume.read_only or None,
            )
            for volume in settings.volumes
        ),
    ]


def _seconds(hours: float) -> int:
    return max(1, round(hours * 3600))


def _volume_name(claim: str) -> str:
    return f"claim-{hashlib.md5(claim.encode()).hexdigest()[:12]}"


def _literal(text: str) -> str:
    """Kubernetes puts variables in place of `$(NAME)` in arguments and values, and one `$` in place of two."""
    return text.replace("$", "$$")
