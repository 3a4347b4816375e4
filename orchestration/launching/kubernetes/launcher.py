"""Jobs of this work tree in one namespace of a Kubernetes cluster."""

import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from data_contracts.errors import InputError
from orchestration.launching.interface import (
    JobHandle,
    JobOrder,
    JobPhase,
    JobStatus,
    LaunchFailed,
    checked_name,
)
from orchestration.launching.job_files import read_log
from orchestration.launching.kubernetes.api import (
    AlreadyExists,
    ClusterApi,
    ClusterError,
    Refused,
    connect,
)
from orchestration.launching.kubernetes.manifests import (
    JOB_LABEL,
    WORK_ANNOTATION,
    WORK_TREE_LABEL,
    job_manifest,
    pytorch_job_manifest,
    work_tree_label,
)
from orchestration.launching.kubernetes.pod_logs import PodLogs
from orchestration.launching.kubernetes.settings import KubernetesSettings, read_settings
from orchestration.launching.kubernetes.status import Workload, job_status

SECONDS_TO_REMOVE = 60.0  # a job whose pods have ended


class KubernetesLauncher:
    """root: of the project whose jobs these are; its infra/kubernetes/settings.yaml says where and how they run."""

    def __init__(
        self, root: Path, settings: KubernetesSettings | None = None, api: ClusterApi | None = None
    ) -> None:
        self.root = root
        self.settings = settings or read_settings(root)
        self.api = api or ClusterApi(
            connect(self.settings), self.settings.namespace, self.settings.several_nodes == "pytorch_job"
        )
        self._labels = {WORK_TREE_LABEL: work_tree_label(root)}
        self._looks: dict[str, tuple[float, JobStatus]] = {}
        self._logs: dict[str, PodLogs] = {}

    def submit(self, order: JobOrder) -> JobHandle:
        """A job of this name that is alive is taken for the one ordered; what an ended one left is removed first."""
        checked_name(order.name)
        try:
            for _ in range(3):
                try:
                    return self._handle(self._create(order))
                except AlreadyExists:
                    existing = self.api.workload(order.name)
                if existing is None:
                    continue
                if existing.labels.get(WORK_TREE_LABEL) != self._labels[WORK_TREE_LABEL]:
                    raise LaunchFailed(f"{order.name}: another work tree's job has this name")
                if not existing.is_over and not existing.deleting:
                    return self._handle(existing)
                self.api.delete(existing)
                self._wait_until_gone(existing)
        except Refused as error:
            raise InputError(
                f"{order.spec.address}: {error}; see resources.needs and infra/kubernetes/settings.yaml"
            ) from None
        except ClusterError as error:
            raise LaunchFailed(f"{order.name}: {error}") from None
        raise LaunchFailed(f"{order.name}: a job of this name comes and goes: is another run submitting it?")

    def _create(self, order: JobOrder) -> Workload:
        if order.spec.needs.nodes == 1:
            return self.api.create_job(job_manifest(order, self.settings, self.root))
        if self.settings.several_nodes == "pytorch_job":
            return self.api.create_pytorch_job(pytorch_job_manifest(order, self.settings, self.root))
        if not self.api.has_service(self.settings.service):
            raise InputError(
                f"{order.spec.address}: its pods need the Service {self.settings.service} to meet: apply"
                " infra/kubernetes/services/jobs.yaml"
            )
        return self.api.create_job(job_manifest(order, self.settings, self.root))

    def _wait_until_gone(self, workload: Workload) -> None:
        """Its pods have their time for a checkpoint."""
        deadline = time.monotonic() + self.settings.checkpoint_seconds + SECONDS_TO_REMOVE
        while (there := self.api.workload(workload.name)) is not None and there.uid == workload.uid:
            if time.monotonic() > deadline:
                raise LaunchFailed(f"{workload.name}: an earlier job of this name does not end")
            time.sleep(min(1.0, self.settings.seconds_between_looks))

    def find(self, name: str) -> JobHandle | None:
        return next(iter(self._alive({JOB_LABEL: checked_name(name)})), None)

    def jobs(self) -> list[JobHandle]:
        return self._alive({})

    def _alive(self, labels: dict[str, str]) -> list[JobHandle]:
        try:
            workloads = self.api.workloads({**self._labels, **labels})
        except ClusterError as error:
            raise LaunchFailed(str(error)) from None
        return [
            self._handle(workload) for workload in workloads if not workload.is_over and not workload.deleting
        ]

    def status(self, handle: JobHandle) -> JobStatus:
        looked, status = self._looks.get(handle.id, (-self.settings.seconds_between_looks, None))
        if status is None or time.monotonic() - looked >= self.settings.seconds_between_looks:
            try:
                status = self._look(handle)
            except ClusterError as error:
                status = JobStatus(phase=JobPhase.UNKNOWN, reason=str(error))
            self._looks[handle.id] = (time.monotonic(), status)
        return status

    def _look(self, handle: JobHandle) -> JobStatus:
        """Ask for the status, and fetch what the pods have written meanwhile."""
        workload = self.api.workload(handle.name)
        if workload is None or workload.uid != handle.id:
            return JobStatus(phase=JobPhase.CANCELLED, reason="was deleted from the cluster")
        pods = self.api.pods(workload)
        status = job_status(workload, pods, datetime.now(UTC), self.settings.start_seconds)
        if status.phase is JobPhase.FAILED and not workload.is_over:
            self.api.delete(workload)  # it cannot start, and the cluster would go on trying
        with suppress(ClusterError):  # the status is known also where events and logs cannot be read
            if status.phase is JobPhase.PENDING and not status.reason:
                uids = [pod.metadata.uid for pod in pods] or [workload.uid]
                status = replace(status, reason=self.api.last_warning(uids))
            if handle.work is not None:
                self._logs.setdefault(handle.id, PodLogs(handle.work)).follow(self.api, pods)
        return status

    def cancel(self, handle: JobHandle) -> None:
        try:
            workload = self.api.workload(handle.name)
            if workload is not None and workload.uid == handle.id and not workload.is_over:
                self.api.delete(workload)
        except ClusterError as error:
            raise LaunchFailed(f"{handle.name} is not cancelled: {error}") from None

    def log(self, handle: JobHandle, offset: int) -> bytes:
        """As of the last look."""
        return read_log(handle.work, offset)

    def _handle(self, workload: Workload) -> JobHandle:
        work = workload.annotations.get(WORK_ANNOTATION)
        return JobHandle(workload.name, workload.uid, Path(work) if work else None)
