"""What a site says of its Kubernetes cluster: `infra/kubernetes/settings.yaml`."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from jobs.runner.context import JobConfig
from jobs.runner.lineage import read_yaml
from jobs.runner.worker import parse_config

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]  # of an object of the cluster
LabelName = Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _absolute(path: PurePosixPath) -> PurePosixPath:
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("must be an absolute path without '..'")
    return path


class Volume(JobConfig):
    """A PersistentVolumeClaim and where jobs find it.

    claim: its name. path: where it is mounted. sub_path: a folder of it instead of the whole.
    read_only: jobs may not write there.
    """

    claim: Name
    path: Annotated[PurePosixPath, AfterValidator(_absolute)]
    sub_path: str | None = None
    read_only: bool = False


class Toleration(JobConfig):
    """A taint of nodes that jobs put up with.

    key: of the taint. value: of the taint; null: whatever it is. effect: of the taint; null: any.
    """

    key: LabelName
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class KubernetesSettings(JobConfig):
    """namespace: where jobs are made.
    context: of the kubeconfig; None for its current one, or the service account of the pod that we run in.

    image: of jobs (infra/containers); it has `python` with all packages on its search path.
    image_pull_policy: of Kubernetes. image_pull_secrets: Secrets with the log-in to the registry.
    several_nodes: what a job on several nodes is, an indexed Job or a Kubeflow PyTorchJob.
    service: without address; gives the pods of an indexed Job the names by which they meet.
    service_account: that pods of jobs have. priority_class: of pods; null: the cluster's default.
    gpu_resource: name under which nodes offer GPUs.
    node_selector: labels a node must have. tolerations: taints of nodes that jobs put up with.
    volumes: one of them holds the work tree, at the path that it has here, where `resources.work_tree` is shared.
    runtime_class: that gives containers GPUs, where it is not the default.
    secrets: Secrets of the namespace whose keys become environment variables of jobs. variables: that are no secrets.
    labels, annotations: of jobs and their pods, such as the queue of Kueue.
    shared_memory_gb: of /dev/shm, for NCCL and data workers; counts as memory of the job.
    scratch_gb: that a job may write to its node's disk (/tmp).
    user_id, group_id: that jobs run as and their volumes belong to.
    checkpoint_seconds: from the signal to stop until a job is killed.
    start_seconds: that an image or a container may fail to start before the job is given up.
    restarts: failures of a pod after which Kubernetes itself starts a job of one node again.
    requeues: time limits after which such a job has to end; each time, and after a disruption, it goes on in a new pod.
    keep_hours: that a finished job and its logs are kept in the cluster.
    seconds_between_looks: at each job's state and log.
    """

    namespace: Name
    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$")]
    context: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[Name, ...] = ()
    several_nodes: Literal["job", "pytorch_job"] = "job"
    service: Name = "alto-jobs"
    service_account: Name = "alto-job"
    priority_class: Name | None = None
    runtime_class: Name | None = None
    gpu_resource: LabelName = "nvidia.com/gpu"
    node_selector: dict[LabelName, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Name, ...] = ()
    variables: dict[VariableName, str] = Field(default_factory=dict)
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict)
    annotations: dict[LabelName, str] = Field(default_factory=dict)
    shared_memory_gb: PositiveFloat = 8.0
    scratch_gb: PositiveFloat = 50.0
    user_id: PositiveInt = 10001
    group_id: PositiveInt = 10001
    checkpoint_seconds: PositiveInt = 300
    start_seconds: PositiveInt = 180
    restarts: NonNegativeInt = 0
    requeues: NonNegativeInt = 20
    keep_hours: PositiveFloat = 48.0
    seconds_between_looks: PositiveFloat = 2.0


def read_settings(root: Path) -> KubernetesSettings:
    """Raises InputError naming every wrong key."""
    path = "infra/kubernetes/settings.yaml"
    return parse_config(KubernetesSettings, "kubernetes", read_yaml(root / path)["kubernetes"], path)
