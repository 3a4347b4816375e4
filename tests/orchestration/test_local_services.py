"""`alto ui`: what listens, and to whom."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.jobs.acquisition.object_store import free_ports
from tests.lineage.project import copy_repository, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAMES = ("dagster", "mlflow", "pages")


@dataclass(frozen=True)
class Running:
    root: Path
    process: subprocess.Popen[str]
    ports: dict[str, int]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All that `make ui` starts, for a project in which nothing has run."""
    root = copy_repository(tmp_path_factory.mktemp("ui") / "project")
    ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
    with (root / ".work.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli", "ui", *options],
            cwd=root,
            env=environment(root),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        assert any(line.startswith("Dagster  http://127.0.0.1:") for line in process.stdout)
        yield Running(root, process, ports)
    finally:
        process.terminate()
        process.wait(60)


def test_everything_listens_on_loopback_only(running: Running) -> None:
    family = [psutil.Process(running.process.pid)]
    family += family[0].children(recursive=True)
    listening = [
        connection.laddr
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.port for address in listening} >= set(running.ports.values())
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    "path",
    [
        "params.yaml",
        ".git/config",
        ".work/mlflow/mlflow.db",
        "reports/../params.yaml",
        "reports/%2e%2e/params.yaml",
        "reports/..%2fparams.yaml",
        "reports//etc/passwd",
        "reports/link/passwd",
        "data/",
        "reports/",
    ],
)
def test_pages_of_the_project_and_nothing_else(running: Running, path: str) -> None:
    (running.root / "reports").mkdir(exist_ok=True)
    link = running.root / "reports" / "link"
    if not link.is_symlink():
        link.symlink_to("/etc")
        (running.root / "reports" / "page.html").write_text("a page")
    address = f"http://127.0.0.1:{running.ports['pages']}"
    with urllib.request.urlopen(f"{address}/reports/page.html", timeout=10) as answer:
        assert answer.read() == b"a page"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/{path}", timeout=10)
