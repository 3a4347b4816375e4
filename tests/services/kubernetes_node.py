"""Runs the pods of a fake cluster as processes of this machine, as its container runtime would."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.services.kubernetes import FakeCluster, fake_cluster

SECONDS_BETWEEN_LOOKS = 0.05
IMAGE = Path(__file__).parents[2]  # takes the place of the code in the image


@contextmanager
def cluster_with_nodes() -> Iterator[FakeCluster]:
    """A cluster that starts the pods of each Job that is created."""
    closed = threading.Event()
    with fake_cluster() as cluster:
        thread = threading.Thread(target=_start_jobs, args=(cluster, closed), daemon=True)
        thread.start()
        try:
            yield cluster
        finally:
            closed.set()
            thread.join()


def kubeconfig(cluster: FakeCluster, path: Path) -> Path:
    """Leads to the cluster."""
    content = {
        "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{cluster.port}"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "test"}}],
        "current-context": "fake",
        "users": [{"name": "test", "user": {}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def _start_jobs(cluster: FakeCluster, closed: threading.Event) -> None:
    started: set[str] = set()
    while not closed.wait(SECONDS_BETWEEN_LOOKS):
        with cluster.lock:
            new = {
                name: job
                for name, job in cluster.kind("jobs").items()
                if job["metadata"]["uid"] not in started
            }
            for name, job in new.items():
                started.add(job["metadata"]["uid"])
                for place, pod in enumerate(cluster.add_pods(name, tuple(range(job["spec"]["completions"])))):
                    threading.Thread(target=_run_pod, args=(cluster, pod, place), daemon=True).start()


def _run_pod(cluster: FakeCluster, pod: str, place: int) -> None:
    with cluster.lock:
        cluster.run(pod, f"node-{place}")
        container = cluster.pod(pod)["spec"]["containers"][0]
    process = subprocess.Popen(
        [sys.executable, *(_expanded(argument) for argument in container["args"])],
        cwd=container.get("workingDir", IMAGE),
        env={**os.environ, **_variables(container, place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    for line in process.stdout:
        with cluster.lock:
            cluster.write(pod, line.decode(errors="replace"))
    status = process.wait()
    with cluster.lock:
        cluster.end(pod, status if status >= 0 else 128 - status)


def _variables(container: dict[str, Any], place: int) -> dict[str, str]:
    """The host of the first pod is this machine; the index comes from the pod's annotation."""
    given = {one["name"]: _expanded(one["value"]) for one in container["env"] if "value" in one}
    given |= {one["name"]: str(place) for one in container["env"] if "valueFrom" in one}
    if "PET_MASTER_ADDR" in given:
        given["PET_MASTER_ADDR"] = "127.0.0.1"
    return given


def _expanded(text: str) -> str:
    return text.replace("$$", "$")
