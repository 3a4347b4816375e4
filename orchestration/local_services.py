"""Dagster and MLflow on this machine, with the project's own home folders."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.errors import InputError
from jobs.runner.registry import REGISTERED_MODELS, register_recorded
from jobs.runner.staleness import lineage_state
from jobs.runner.tracking import send_kept, trouble, use_project_store
from orchestration.left_out import standing

if TYPE_CHECKING:
    import dagster as dg

SECONDS_TO_START = 180


def use_project_home(root: Path) -> Path:
    """Point Dagster at `.work/dagster`, configured by infra/dagster/local.yaml, unless DAGSTER_HOME is set."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(root / ".work" / "dagster")))
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copy(root / "infra" / "dagster" / "local.yaml", home / "dagster.yaml")
    return home


def bring_up_to_date(root: Path) -> None:
    """Report the ledger to Dagster, register what it records in MLflow, and show that in Dagster, too."""
    import dagster as dg

    from orchestration.ledger_sync import sync_ledger

    use_project_home(root)
    with dg.DagsterInstance.get() as instance:
        print(f"Dagster: {len(sync_ledger(root, instance))} materializations reported")
        try:
            for line in bring_mlflow_up_to_date(root, instance):
                print(f"MLflow: {line}")
        except InputError as error:
            print(f"MLflow: {error}")
        except Exception as error:  # whatever MLflow's client raises
            print(trouble(error, "`alto sync` again later"))


def bring_mlflow_up_to_date(root: Path, instance: "dg.DagsterInstance") -> Iterator[str]:
    """What is done, a line each. Raises InputError, and whatever MLflow's client raises."""
    from orchestration.ledger_sync import sync_registration

    for name in send_kept(root):
        yield f"what {name} could not send before"
    states = lineage_state(root)
    if not {str(address) for address in standing(states)}.issuperset(REGISTERED_MODELS):
        yield "nothing to register, the models are not up to date"
        return
    versions = register_recorded(root, states)
    sync_registration(instance, states, versions)
    for version in versions:
        yield f"{version.model} version {version.version} ({version.how})"


def serve(root: Path, dagster_port: int, mlflow_port: int, pages_port: int) -> None:
    """Run the services in the foreground until interrupted. Raises InputError where a port is taken.

    Where MLFLOW_TRACKING_URI names a server, that one is used and none is started.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):  # a shell starts background commands with SIGINT ignored
        signal.signal(ending, signal.default_int_handler)
    use_project_store(root)
    ports = {"dagster": dagster_port, "pages": pages_port}
    shared_mlflow = os.environ["MLFLOW_TRACKING_URI"].startswith("http")
    if not shared_mlflow:
        ports["mlflow"] = mlflow_port
    for name, port in ports.items():
        if is_open(port):
            raise InputError(f"port {port} is in use: choose another with --{name}-port")
    dagster, mlflow, pages = (f"http://127.0.0.1:{port}" for port in (dagster_port, mlflow_port, pages_port))
    if shared_mlflow:
        mlflow = os.environ["MLFLOW_TRACKING_URI"]
    os.environ["ALTO_MLFLOW_URL"], os.environ["ALTO_PAGES_URL"] = mlflow, pages
    os.environ["ALTO_DAGSTER_URL"] = dagster
    bring_up_to_date(root)
    services = {pages: start_pages(pages_port), dagster: start_dagster(dagster_port)}
    if not shared_mlflow:
        services[mlflow] = start_mlflow(root, mlflow_port)
    try:
        wait_until_ready(services)
        print(f"\nDagster  {dagster}\nMLflow   {mlflow}\n", flush=True)
        while all(process.poll() is None for process in services.values()):
            time.sleep(1.0)
        raise InputError("a service has ended: see .work/mlflow/server.log and the lines above")
    except KeyboardInterrupt:
        print("stopping")
    finally:
        stop(list(services.values()))


def start_pages(port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "orchestration.page_server", str(port)]
    return subprocess.Popen(command, start_new_session=True)


def start_mlflow(root: Path, port: int) -> subprocess.Popen[bytes]:
    folder = root / ".work" / "mlflow"
    command = [
        *(
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ),
        *("--backend-store-uri", os.environ["MLFLOW_TRACKING_URI"]),
        *("--default-artifact-root", (folder / "artifacts").as_uri()),
    ]
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def start_dagster(port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dagster", "dev", "-m", "orchestration.definitions"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    # `dagster dev` warns that a newer command of a package we do not need replaces it.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(command, start_new_session=True, env=environment)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_ready(services: dict[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    for address, process in services.items():
        while not answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise InputError(f"{address} did not start: see the lines above and .work/mlflow/server.log")
            time.sleep(0.5)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return response.status == 200
    except urllib.error.HTTPError:  # it answers, if only with "no such page"
        return True
    except (urllib.error.URLError, OSError):
        return False


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
