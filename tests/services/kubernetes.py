"""A Kubernetes API server of a few endpoints on loopback, and a controller of Jobs that a test drives by hand.

Nothing runs: a test says what pods do.
"""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

NAMESPACE = "alto"
RESOURCE = re.compile(
    rf"/(?:api/v1|apis/batch/v1|apis/kubeflow.org/v1)/namespaces/{NAMESPACE}/"
    r"(?P<plural>jobs|services|pods|events|pytorchjobs)(?:/(?P<name>[a-z0-9.-]+))?(?P<log>/log)?"
)


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class FakeCluster:
    """refusals: statuses with which the next requests are answered. requests: what was asked, oldest first."""

    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    logs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    refusals: list[int] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    keeps_deleted: bool = False  # pods take their time to end
    port: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self._counter = 0

    # The server

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def api_client(self) -> client.ApiClient:
        configuration = client.Configuration()
        configuration.host = f"http://127.0.0.1:{self.port}"
        configuration.retries = False
        return client.ApiClient(configuration)

    def kind(self, plural: str) -> dict[str, dict[str, Any]]:
        return self.objects.setdefault(plural, {})

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        matched = RESOURCE.fullmatch(path)
        if not matched:
            raise Refused(404, "the server could not find the requested resource")
        plural, name = matched["plural"], matched["name"]
        if method == "POST":
            return self._create(plural, body)
        if name is None:
            return self._list(plural, query)
        if name not in self.kind(plural):
            raise Refused(404, f'{plural} "{name}" not found')
        if matched["log"]:
            return self._log(name, query)
        return self._delete(plural, name, body) if method == "DELETE" else self.kind(plural)[name]

    def _create(self, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if name in self.kind(plural):
            raise Refused(409, f'{plural} "{name}" already exists')
        return self.put(plural, body)

    def _list(self, plural: str, query: dict[str, str]) -> dict[str, Any]:
        items = list(self.kind(plural).values())
        for wanted in filter(None, query.get("labelSelector", "").split(",")):
            label, _, value = wanted.partition("=")
            items = [item for item in items if item["metadata"].get("labels", {}).get(label) == value]
        for wanted in filter(None, query.get("fieldSelector", "").split(",")):
            path, _, value = wanted.partition("=")
            items = [item for item in items if _at(item, path) == value]
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}

    def _delete(self, plural: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        there = self.kind(plural)[name]
        assert body["propagationPolicy"] == "Foreground"  # its pods end before its name is free
        if (uid := body.get("preconditions", {}).get("uid")) not in (None, there["metadata"]["uid"]):
            raise Refused(409, f"the UID in the precondition ({uid}) does not match")
        there["metadata"]["deletionTimestamp"] = now()
        if not self.keeps_deleted:
            self.remove(plural, name)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _log(self, name: str, query: dict[str, str]) -> str:
        if name not in self.logs:
            raise Refused(400, f'container "job" in pod "{name}" is waiting to start: ContainerCreating')
        assert query["timestamps"] == "true"
        lines = self.logs[name]
        if "sinceSeconds" in query:
            since = time.time() - float(query["sinceSeconds"])
            lines = [
                line for line in lines if datetime.fromisoformat(f"{line[0][:19]}+00:00").timestamp() >= since
            ]
        return "".join(f"{stamp} {text}" for stamp, text in lines)

    # What happens in the cluster

    def put(self, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        self._counter += 1
        body["metadata"] |= {
            "uid": f"uid-{self._counter}",
            "creationTimestamp": now(),
            "namespace": NAMESPACE,
        }
        body.setdefault("status", {})
        self.kind(plural)[body["metadata"]["name"]] = body
        return body

    def remove(self, plural: str, name: str) -> None:
        """With all that it owns."""
        uid = self.kind(plural).pop(name)["metadata"]["uid"]
        for owned in [body for body in self.kind("pods").values() if _owner(body) == uid]:
            del self.kind("pods")[owned["metadata"]["name"]]

    def add_pods(self, job: str, indices: tuple[int, ...] = (0,)) -> list[str]:
        """The pods that the controller makes of a Job; their names."""
        body = self.kind("jobs")[job]
        names = []
        for index in indices:
            template = json.loads(json.dumps(body["spec"]["template"]))
            self._counter += 1
            name = f"{job}-{index}-{self._counter:05}"
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": body["metadata"]["uid"]}
            annotations = template["metadata"]["annotations"] | {
                "batch.kubernetes.io/job-completion-index": str(index)
            }
            metadata = {**template["metadata"], "name": name, "annotations": annotations}
            self.put(
                "pods",
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": metadata | {"ownerReferences": [owner | {"controller": True}]},
                    "spec": template["spec"],
                    "status": {"phase": "Pending", "conditions": []},
                },
            )
            names.append(name)
        return names

    def pod(self, name: str) -> dict[str, Any]:
        return self.kind("pods")[name]

    def unschedulable(self, pod: str, message: str) -> None:
        self._condition(pod, "PodScheduled", "False", "Unschedulable", message)

    def waiting(self, pod: str, reason: str, message: str = "", since: str | None = None) -> None:
        self._condition(pod, "PodScheduled", "True", since=since)
        self._container(pod, {"waiting": {"reason": reason, "message": message}})

    def run(self, pod: str, node: str = "gpu-1") -> None:
        self._condition(pod, "PodScheduled", "True")
        self.pod(pod)["spec"]["nodeName"] = node
        self.pod(pod)["status"]["phase"] = "Running"
        self._container(pod, {"running": {"startedAt": now()}})
        self.logs[pod] = []

    def write(self, pod: str, text: str, stamp: str | None = None) -> None:
        self.logs[pod].append((stamp or f"{now()[:-1]}.{time.time_ns() % 10**9:09}Z", text))

    def end(
        self, pod: str, exit_code: int, reason: str = "Error", pod_reason: str = "", message: str = ""
    ) -> None:
        """Its container ends, and the controller draws its conclusion."""
        self._container(pod, {"terminated": {"exitCode": exit_code, "reason": reason}})
        status = self.pod(pod)["status"]
        status |= {"phase": "Failed" if exit_code else "Succeeded", "reason": pod_reason, "message": message}
        self._conclude(pod, exit_code)

    def disrupt(self, pod: str, reason: str, message: str = "", exit_code: int = 143) -> None:
        self._condition(pod, "DisruptionTarget", "True", reason, message)
        self.end(pod, exit_code)

    def warn(self, uid: str, reason: str, message: str) -> None:
        self._counter += 1
        event = {
            "metadata": {"name": f"event-{self._counter}"},
            "involvedObject": {"uid": uid},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": now(),
        }
        self.put("events", event)

    def job_condition(
        self, job: str, kind: str, reason: str = "", message: str = "", plural: str = "jobs"
    ) -> None:
        conditions = self.kind(plural)[job]["status"].setdefault("conditions", [])
        conditions.append({"type": kind, "status": "True", "reason": reason, "message": message})

    def _conclude(self, pod: str, exit_code: int) -> None:
        """As the Job controller: the first rule of podFailurePolicy that fits, else backoffLimit."""
        job = self.pod(pod)["metadata"]["ownerReferences"][0]["name"]
        spec = self.kind("jobs")[job]["spec"]
        pods = [
            body
            for body in self.kind("pods").values()
            if _owner(body) == self.kind("jobs")[job]["metadata"]["uid"]
        ]
        if exit_code == 0:
            if sum(body["status"]["phase"] == "Succeeded" for body in pods) == spec["completions"]:
                self.job_condition(job, "Complete")
            return
        action, index, why = self._rule(spec, pod, exit_code)
        if action == "FailJob":
            self.job_condition(
                job, "Failed", "PodFailurePolicy", f"{why} matching FailJob rule at index {index}"
            )
        elif action == "Ignore":
            place = self.pod(pod)["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
            self.add_pods(job, (int(place),))
        elif spec["backoffLimit"] == 0:
            message = "Job has reached the specified backoff limit"
            self.job_condition(job, "Failed", "BackoffLimitExceeded", message)

    def _rule(self, spec: dict[str, Any], pod: str, exit_code: int) -> tuple[str, int, str]:
        held = {body["type"] for body in self.pod(pod)["status"]["conditions"] if body["status"] == "True"}
        for index, rule in enumerate(spec["podFailurePolicy"]["rules"]):
            if held & {pattern["type"] for pattern in rule.get("onPodConditions", [])}:
                return rule["action"], index, f"Pod {NAMESPACE}/{pod} has condition DisruptionTarget"
            if exit_code in rule.get("onExitCodes", {}).get("values", []):
                why = f"Container job for pod {NAMESPACE}/{pod} failed with exit code {exit_code}"
                return rule["action"], index, why
        return "Count", -1, ""

    def _condition(
        self, pod: str, kind: str, status: str, reason: str = "", message: str = "", since: str | None = None
    ) -> None:
        conditions = self.pod(pod)["status"]["conditions"]
        conditions[:] = [condition for condition in conditions if condition["type"] != kind]
        condition = {"type": kind, "status": status, "reason": reason, "message": message}
        conditions.append(condition | {"lastTransitionTime": since or now()})

    def _container(self, pod: str, state: dict[str, Any]) -> None:
        container = self.pod(pod)["spec"]["containers"][0]
        status = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False}
        self.pod(pod)["status"]["containerStatuses"] = [status | {"restartCount": 0, "state": state}]


@contextmanager
def fake_cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _owner(body: dict[str, Any]) -> str | None:
    return next((owner["uid"] for owner in body["metadata"].get("ownerReferences", [])), None)


def _at(body: Any, path: str) -> Any:
    for key in path.split("."):
        body = body.get(key, {})
    return body


def _handler(cluster: FakeCluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            with cluster.lock:
                cluster.requests.append(f"{self.command} {parts.path}")
                try:
                    if cluster.refusals:
                        raise Refused(cluster.refusals.pop(0), "refused by the test")
                    answer = cluster.answer(self.command, parts.path, query, json.loads(sent or b"{}"))
                    status = 201 if self.command == "POST" else 200
                except Refused as refused:
                    status = refused.status
                    answer = {"kind": "Status", "status": "Failure", "message": str(refused), "code": status}
                body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")  # so that a stopped server answers no one
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
