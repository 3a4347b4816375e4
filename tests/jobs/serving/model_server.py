"""`mlflow models serve` of a registered version, for as long as a context is open."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.lineage.project import environment

SECONDS_TO_START = 120


@dataclass(frozen=True)
class Server:
    address: str
    process_id: int

    @property
    def resident_bytes(self) -> int:
        """Memory of the server and its workers."""
        processes = [
            psutil.Process(self.process_id),
            *psutil.Process(self.process_id).children(recursive=True),
        ]
        return sum(process.memory_info().rss for process in processes)


@contextmanager
def served(root: Path, model: str, log: Path) -> Iterator[Server]:
    """A server for the version in the project's registry; it runs outside the project's folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {**environment(root), "MLFLOW_TRACKING_URI": f"sqlite:///{root / '.work/mlflow/mlflow.db'}"}
    variables["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    del variables["PYTHONPATH"]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "--model-uri",
        model,
        "--env-manager",
        "local",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=log.parent,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, address, log)
        yield Server(address, process.pid)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no answer in {SECONDS_TO_START} s\n{log.read_text()}")


def ask(address: str, image: bytes, expressions: list[str], **params: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer."""
    return post(address, request_body(image, expressions, **params))


def request_body(image: bytes, expressions: list[str], **params: Any) -> bytes:
    row = [base64.b64encode(image).decode(), expressions]
    content = {"dataframe_split": {"columns": ["image", "expressions"], "data": [row]}, "params": params}
    return json.dumps(content).encode()


def post(address: str, body: bytes) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
