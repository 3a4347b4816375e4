"""The few requests to a cluster's API that jobs need, with its errors in one line each."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from data_contracts.errors import InputError, first_line
from orchestration.launching.kubernetes.manifests import JOB_LABEL, PYTORCH_JOB
from orchestration.launching.kubernetes.settings import KubernetesSettings
from orchestration.launching.kubernetes.status import Condition, Workload, one_line

TIMEOUT = (5.0, 30.0)  # seconds to connect, to answer
# Every request may be sent twice: objects are named by us, and an existing one is taken for what it is.
RETRIES = urllib3.Retry(
    total=4,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
)


class ClusterError(Exception):
    """The cluster refused a request or could not be asked."""


class AlreadyExists(ClusterError):
    """There is an object of this name."""


class Refused(ClusterError):
    """What was asked for is wrong or not allowed: asking again does not help."""


class NotThere(ClusterError):
    """There is no object of this name, or no longer."""


def connect(settings: KubernetesSettings) -> client.ApiClient:
    """As the kubeconfig says, or as the service account of the pod that this process runs in.

    Raises InputError where there is neither.
    """
    configuration = client.Configuration()
    configuration.retries = RETRIES
    try:
        try:
            if settings.context is not None:
                raise config.ConfigException
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            config.load_kube_config(context=settings.context, client_configuration=configuration)
    except config.ConfigException as error:
        raise InputError(f"no Kubernetes cluster: {first_line(error)}; set KUBECONFIG") from None
    return client.ApiClient(configuration)


class ClusterApi:
    """One namespace of a cluster. Each method raises ClusterError where it cannot do what it says."""

    def __init__(self, api_client: client.ApiClient, namespace: str, with_pytorch_jobs: bool) -> None:
        self.namespace = namespace
        self._with_pytorch_jobs = with_pytorch_jobs
        self._core = client.CoreV1Api(api_client)
        self._batch = client.BatchV1Api(api_client)
        self._custom = client.CustomObjectsApi(api_client)

    def create_job(self, job: client.V1Job) -> Workload:
        with _asked():
            return _of_job(self._batch.create_namespaced_job(self.namespace, job, _request_timeout=TIMEOUT))

    def has_service(self, name: str) -> bool:
        try:
            with _asked():
                self._core.read_namespaced_service(name, self.namespace, _request_timeout=TIMEOUT)
        except NotThere:
            return False
        return True

    def create_pytorch_job(self, job: dict[str, Any]) -> Workload:
        group, version, plural = PYTORCH_JOB
        with _asked():
            return _of_pytorch_job(
                self._custom.create_namespaced_custom_object(
                    group, version, self.namespace, plural, job, _request_timeout=TIMEOUT
                )
            )

    def workload(self, name: str) -> Workload | None:
        """The Job or PyTorchJob of this name."""
        group, version, plural = PYTORCH_JOB
        try:
            with _asked():
                return _of_job(
                    self._batch.read_namespaced_job(name, self.namespace, _request_timeout=TIMEOUT)
                )
        except NotThere:
            if not self._with_pytorch_jobs:
                return None
        try:
            with _asked():
                return _of_pytorch_job(
                    self._custom.get_namespaced_custom_object(
                        group, version, self.namespace, plural, name, _request_timeout=TIMEOUT
                    )
                )
        except NotThere:
            return None

    def workloads(self, labels: Mapping[str, str]) -> list[Workload]:
        selector = _selector(labels)
        with _asked():
            jobs = self._batch.list_namespaced_job(
                self.namespace, label_selector=selector, _request_timeout=TIMEOUT
            )
        found = [_of_job(job) for job in jobs.items]
        if self._with_pytorch_jobs:
            group, version, plural = PYTORCH_JOB
            with _asked():
                listed = self._custom.list_namespaced_custom_object(
                    group, version, self.namespace, plural, label_selector=selector, _request_timeout=TIMEOUT
                )
            found += [_of_pytorch_job(job) for job in listed["items"]]
        return found

    def delete(self, workload: Workload) -> None:
        """End its pods, with their time for a checkpoint, then remove it. Nothing happens where it is gone."""
        options = client.V1DeleteOptions(
            propagation_policy="Foreground",
            preconditions=client.V1Preconditions(uid=workload.uid),  # not a later one of the same name
        )
        group, version, plural = PYTORCH_JOB
        try:
            with _asked():
                if workload.kind == "Job":
                    self._batch.delete_namespaced_job(
                        workload.name, self.namespace, body=options, _request_timeout=TIMEOUT
                    )
                else:
                    self._custom.delete_namespaced_custom_object(
                        group,
                        version,
                        self.namespace,
                        plural,
                        workload.name,
                        body=options,
                        _request_timeout=TIMEOUT,
                    )
        except (NotThere, AlreadyExists):  # a conflict: the uid is another one's
            return

    def pods(self, workload: Workload) -> list[client.V1Pod]:
        """Those that belong to it, and not to an earlier one of its name."""
        with _asked():
            listed = self._core.list_namespaced_pod(
                self.namespace,
                label_selector=_selector({JOB_LABEL: workload.name}),
                _request_timeout=TIMEOUT,
            )
        return [
            pod
            for pod in listed.items
            if any(owner.uid == workload.uid for owner in pod.metadata.owner_references or [])
        ]

    def pod_log(self, pod: client.V1Pod, since_seconds: int | None) -> bytes:
        """Lines of its container, each with the time before it; nothing before it has started or after it is gone."""
        try:
            with _asked():
                answer = self._core.read_namespaced_pod_log(
                    pod.metadata.name,
                    self.namespace,
                    container=pod.spec.containers[0].name,
                    timestamps=True,
                    since_seconds=since_seconds,
                    _preload_content=False,
                    _request_timeout=TIMEOUT,
                )
                return bytes(answer.data)
        except NotThere:
            return b""

    def last_warning(self, uids: list[str]) -> str:
        """What the cluster complains of about these objects, such as a quota or a volume that cannot be mounted."""
        with _asked():
            events = [
                event
                for uid in uids
                for event in self._core.list_namespaced_event(
                    self.namespace,
                    field_selector=f"involvedObject.uid={uid},type=Warning",
                    _request_timeout=TIMEOUT,
                ).items
            ]
        if not events:
            return ""
        last = max(events, key=lambda event: event.last_timestamp or event.metadata.creation_timestamp)
        return one_line(f"{last.reason}: {last.message}")


def _of_job(job: client.V1Job) -> Workload:
    conditions = (job.status.conditions if job.status else None) or []
    return Workload(
        kind="Job",
        name=job.metadata.name,
        uid=job.metadata.uid,
        labels=job.metadata.labels or {},
        annotations=job.metadata.annotations or {},
        deleting=job.metadata.deletion_timestamp is not None,
        conditions={
            condition.type: Condition(condition.reason or "", condition.message or "")
            for condition in conditions
            if condition.status == "True"
        },
    )


def _of_pytorch_job(job: Mapping[str, Any]) -> Workload:
    metadata = job["metadata"]
    return Workload(
        kind="PyTorchJob",
        name=metadata["name"],
        uid=metadata["uid"],
        labels=metadata.get("labels", {}),
        annotations=metadata.get("annotations", {}),
        deleting="deletionTimestamp" in metadata,
        conditions={
            condition["type"]: Condition(condition.get("reason", ""), condition.get("message", ""))
            for condition in job.get("status", {}).get("conditions", [])
            if condition["status"] == "True"
        },
    )


@contextmanager
def _asked() -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        raise _error_of(error) from None
    except urllib3.exceptions.HTTPError as error:
        raise ClusterError(f"the cluster does not answer ({type(error).__name__})") from None


def _error_of(error: ApiException) -> ClusterError:
    """What the status means; a container that has not started has no log (400)."""
    try:
        message = str(json.loads(error.body or "{}").get("message", error.reason))
    except (ValueError, AttributeError):
        message = str(error.reason)
    line = one_line(f"the cluster answered {error.status}: {message}")
    if error.status in (404, 410) or (error.status == 400 and "waiting to start" in message):
        return NotThere(line)
    if error.status == 409:
        return AlreadyExists(line)
    return Refused(line) if error.status in (400, 401, 403, 422) else ClusterError(line)


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())
