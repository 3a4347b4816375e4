"""What became of a job, from what the cluster says of it and of its pods."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from kubernetes import client

from jobs.runner.stopping import STATUS_STOPPED
from orchestration.launching.interface import JobPhase, JobStatus

CANNOT_START = frozenset(
    (
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
    )
)
NODE_LOST = frozenset(("DeletionByTaintManager", "DeletionByPodGC", "NodeLost"))
REFUSED_BY_NODE = ("UnexpectedAdmissionError", "OutOf", "NodeAffinity")
INDEX = "batch.kubernetes.io/job-completion-index"
REPLICA = ("training.kubeflow.org/replica-type", "training.kubeflow.org/replica-index")

# Where pods of a job ended differently: what ended the first of them, rather than what that did to the others.
TELLING = (
    JobPhase.TIMED_OUT,
    JobPhase.OUT_OF_MEMORY,
    JobPhase.NODE_FAILED,
    JobPhase.PREEMPTED,
    JobPhase.FAILED,
)


@dataclass(frozen=True)
class Condition:
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A Job or a PyTorchJob. conditions: those that hold, by type. deleting: its pods are being ended."""

    kind: Literal["Job", "PyTorchJob"]
    name: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    deleting: bool
    conditions: Mapping[str, Condition]

    @property
    def failure(self) -> Condition | None:
        return self.conditions.get("Failed")

    @property
    def succeeded(self) -> bool:
        return "Complete" in self.conditions or "Succeeded" in self.conditions

    @property
    def is_over(self) -> bool:
        return self.succeeded or self.failure is not None


def job_status(
    workload: Workload, pods: Sequence[client.V1Pod], now: datetime, start_seconds: float
) -> JobStatus:
    """The job's phase, with one line of reason.

    A job whose container could not be started for start_seconds is FAILED, though the cluster would go on trying.
    """
    newest = newest_pods(pods)
    nodes = ",".join(sorted({pod.spec.node_name for pod in newest if pod.spec.node_name}))
    if workload.succeeded:
        return JobStatus(phase=JobPhase.SUCCEEDED, exit_code=0, nodes=nodes)
    if workload.failure is not None:
        return _ended(workload.failure, newest, nodes)
    if workload.deleting:
        return JobStatus(phase=JobPhase.RUNNING, reason="is being ended", nodes=nodes)
    if not newest:
        suspended = workload.conditions.get("Suspended")
        reason = f"waits in a queue: {suspended.message}" if suspended else ""
        return JobStatus(phase=JobPhase.PENDING, reason=reason)
    starting = [_starting(pod, now, start_seconds) for pod in newest]
    for phase in (JobPhase.FAILED, JobPhase.PENDING):
        reasons = [status.reason for status in starting if status.phase is phase]
        if reasons:
            return JobStatus(phase=phase, reason=next(filter(None, reasons), ""), nodes=nodes)
    return JobStatus(phase=JobPhase.RUNNING, nodes=nodes)


def newest_pods(pods: Iterable[client.V1Pod]) -> list[client.V1Pod]:
    """The last pod of each place in the job: earlier ones were disrupted and replaced."""
    by_place = {place_of(pod): pod for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp)}
    return [pod for _, pod in sorted(by_place.items())]


def place_of(pod: client.V1Pod) -> int:
    """Which node of the job a pod is, from 0."""
    metadata = pod.metadata
    labels = metadata.labels or {}
    if REPLICA[0] in labels:
        first = labels[REPLICA[0]].lower() == "master"
        return 0 if first else 1 + int(labels[REPLICA[1]])
    return int((metadata.annotations or {}).get(INDEX, 0))


def _starting(pod: client.V1Pod, now: datetime, start_seconds: float) -> JobStatus:
    """PENDING with what a pod waits for, FAILED where it waits in vain, else RUNNING."""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return JobStatus(
            phase=JobPhase.PENDING, reason=f"cannot be placed on a node: {one_line(scheduled.message)}"
        )
    for container in pod.status.container_statuses or []:
        waiting = container.state.waiting if container.state else None
        if waiting is None:
            continue
        reason = one_line(f"{waiting.reason}: {waiting.message or ''}".rstrip(": "))
        if waiting.reason not in CANNOT_START:
            return JobStatus(phase=JobPhase.PENDING, reason=reason)
        since = scheduled.last_transition_time if scheduled is not None else pod.metadata.creation_timestamp
        hopeless = now - since > timedelta(seconds=start_seconds)
        return JobStatus(
            phase=JobPhase.FAILED if hopeless else JobPhase.PENDING, reason=f"cannot start: {reason}"
        )
    return JobStatus(phase=JobPhase.PENDING if pod.status.phase == "Pending" else JobPhase.RUNNING)


def _ended(failure: Condition, pods: Sequence[client.V1Pod], nodes: str) -> JobStatus:
    """How a failed job ended: the pod whose end explains that of the others, else what the job says itself."""
    said = one_line(f"{failure.reason}: {failure.message}")
    if failure.reason == "DeadlineExceeded":
        return JobStatus(phase=JobPhase.TIMED_OUT, reason=said, nodes=nodes)
    ends = [end for pod in pods if (end := pod_end(pod)) is not None]
    if ends:
        end = min(ends, key=lambda end: TELLING.index(end.phase))
        return JobStatus(phase=end.phase, exit_code=end.exit_code, reason=end.reason, nodes=nodes)
    disrupted = "DisruptionTarget" in failure.message
    return JobStatus(phase=JobPhase.PREEMPTED if disrupted else JobPhase.FAILED, reason=said, nodes=nodes)


def pod_end(pod: client.V1Pod) -> JobStatus | None:
    """How one pod failed; None for one that goes on or has succeeded."""
    disruption = _condition(pod, "DisruptionTarget")
    if pod.status.phase != "Failed" and disruption is None:
        return None
    phase, exit_code, reason = _cause(pod, disruption)
    return JobStatus(phase=phase, exit_code=exit_code, reason=one_line(f"{pod.metadata.name}: {reason}"))


def _cause(pod: client.V1Pod, disruption: client.V1PodCondition | None) -> tuple[JobPhase, int | None, str]:
    reason, message = pod.status.reason or "", pod.status.message or ""
    said = f"{reason}: {message}"
    ended = next(
        (
            container.state.terminated
            for container in pod.status.container_statuses or []
            if container.state and container.state.terminated
        ),
        None,
    )
    exit_code = ended.exit_code if ended else None
    if reason == "DeadlineExceeded":
        return JobPhase.TIMED_OUT, exit_code, said
    if ended is not None and ended.reason == "OOMKilled":
        return JobPhase.OUT_OF_MEMORY, exit_code, "OOMKilled: it used more memory than its limit"
    if reason == "Evicted" and "exceed" in message:  # its own use of disk, and not the node's shortage
        return JobPhase.FAILED, exit_code, said
    if disruption is not None or reason in ("Evicted", *NODE_LOST):
        by = disruption.reason if disruption else reason
        lost = JobPhase.NODE_FAILED if by in NODE_LOST else JobPhase.PREEMPTED
        return lost, exit_code, said if not disruption else f"{by}: {disruption.message or message}"
    if reason.startswith(REFUSED_BY_NODE):
        return JobPhase.NODE_FAILED, exit_code, said
    if exit_code == STATUS_STOPPED:
        return JobPhase.PREEMPTED, exit_code, "was asked to stop and goes on later"
    if ended is None:
        return JobPhase.FAILED, None, said
    return JobPhase.FAILED, exit_code, f"ended with status {exit_code} ({ended.reason or 'Error'})"


def _condition(pod: client.V1Pod, kind: str) -> client.V1PodCondition | None:
    """`PodScheduled` is told as it is; of others only those that hold."""
    for condition in pod.status.conditions or []:
        if condition.type == kind and (kind == "PodScheduled" or condition.status == "True"):
            return condition
    return None


def one_line(text: str | None, longest: int = 400) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
