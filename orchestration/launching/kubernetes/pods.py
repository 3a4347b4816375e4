"""The pods of a job: what runs in them, with which resources, rights and volumes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kubernetes import client

from data_contracts.errors import InputError
from orchestration.launching.interface import JobOrder
from orchestration.launching.kubernetes.settings import KubernetesSettings

RENDEZVOUS_PORT = 29500
SECONDS_TO_MEET = 1800  # that the pods of a job may start apart


def pod_template(
    order: JobOrder, settings: KubernetesSettings, root: Path, metadata: client.V1ObjectMeta, container: str
) -> client.V1PodTemplateSpec:
    """One container of this name, with what the order needs and what the site gives.

    Raises InputError where it would not see its work tree.
    """
    return client.V1PodTemplateSpec(
        metadata=metadata,
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
            active_deadline_seconds=seconds(order.spec.needs.hours),
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
        args=[literal(argument) for argument in _python_arguments(order)],
        working_dir=str(root) if shared else None,
        env=[client.V1EnvVar(name=key, value=literal(value)) for key, value in sorted(variables.items())],
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


def rendezvous_variables(order: JobOrder, settings: KubernetesSettings) -> list[client.V1EnvVar]:
    """Options of torchrun, which reads each from PET_<OPTION>; the names that Kubeflow's operator uses, too."""
    index = client.V1ObjectFieldSelector(
        field_path="metadata.annotations['batch.kubernetes.io/job-completion-index']"
    )
    options: Mapping[str, object] = {
        "PET_NNODES": order.spec.needs.nodes,
        "PET_NPROC_PER_NODE": order.spec.processes,
        "PET_MASTER_ADDR": f"{order.name}-0.{settings.service}",
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
        client.V1VolumeMount(name="scratch", mount_path="/tmp"),
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


def seconds(hours: float) -> int:
    return max(1, round(hours * 3600))


def _volume_name(claim: str) -> str:
    return f"claim-{hashlib.md5(claim.encode()).hexdigest()[:12]}"


def literal(text: str) -> str:
    """Kubernetes puts variables in place of `$(NAME)` in arguments and values, and one `$` in place of two."""
    return text.replace("$", "$$")
