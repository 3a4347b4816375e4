"""PostgreSQL, an object store and MLflow behind passwords, as a deployment has them, on loopback and free ports."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.jobs.acquisition.object_store import ACCESS_KEY, SECRET_KEY, client, free_ports, object_store
from tests.services.postgres import PASSWORD, USER, Postgres, postgres

ROOT = Path(__file__).parents[2]
ADMIN, ADMIN_PASSWORD = "admin", "planted-admin:p@ss/w%rd"
PIPELINE, PIPELINE_PASSWORD = "pipeline", "planted-pipeline:p@ss/w%rd"
SECRET_OF_SESSIONS = "planted-secret-of-sessions"
TOKEN = "planted-token-of-another-service"
SECRETS = (PASSWORD, SECRET_KEY, ADMIN_PASSWORD, PIPELINE_PASSWORD, SECRET_OF_SESSIONS, TOKEN)
BUCKETS = ("logs", "artifacts", "storage")
STARTING_SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class Site:
    """folder: for logs of services. mlflow: address."""

    folder: Path
    postgres: Postgres
    store: str
    mlflow: str

    def pipeline_variables(self) -> dict[str, str]:
        """Environment of what runs the pipeline: Dagster's processes, jobs and the `alto` command."""
        return {
            **store_variables(self.folder, self.store),
            **dagster_variables(self.postgres),
            "DAGSTER_LOGS_BUCKET": "logs",
            "DAGSTER_LOGS_FOLDER": str(self.folder / "compute_logs"),
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_TRACKING_USERNAME": PIPELINE,
            "MLFLOW_TRACKING_PASSWORD": PIPELINE_PASSWORD,
            "HF_TOKEN": TOKEN,
        }


def dagster_variables(server: Postgres) -> dict[str, str]:
    return {
        "DAGSTER_POSTGRES_HOST": "127.0.0.1",
        "DAGSTER_POSTGRES_PORT": str(server.port),
        "DAGSTER_POSTGRES_USER": USER,
        "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
        "DAGSTER_POSTGRES_DB": "dagster",
    }


def store_variables(folder: Path, store: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_ENDPOINT_URL_S3": store,
    }


def database_variables(server: Postgres, database: str) -> dict[str, str]:
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": USER,
        "PGPASSWORD": PASSWORD,
        "PGDATABASE": database,
    }


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    (folder / "store").mkdir()
    with postgres(("dagster", "mlflow")) as database, object_store(folder / "store") as store:
        for bucket in BUCKETS:
            client(store).create_bucket(Bucket=bucket)
        with mlflow_server(folder, database, store) as address:
            yield Site(folder=folder, postgres=database, store=store, mlflow=address)


@contextmanager
def mlflow_server(folder: Path, database: Postgres, store: str) -> Iterator[str]:
    """infra/mlflow/serve.sh; its log is in `folder`. Gives its address."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    variables = {
        **store_variables(folder, store),
        **database_variables(database, "mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://artifacts/mlflow",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET_OF_SESSIONS,
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "MLFLOW_PORT": str(port),
        "MLFLOW_WORKERS": "1",
        "PYTHON": sys.executable,
    }
    with (folder / "mlflow.log").open("ab") as log:
        process = subprocess.Popen(
            [ROOT / "infra/mlflow/serve.sh"],
            env={**os.environ, **variables},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until_healthy(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def wait_until_healthy(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTING_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise RuntimeError(f"MLflow did not start (exit status {process.poll()}): see mlflow.log")


def add_user(address: str, name: str, password: str) -> None:
    administrator = {
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": ADMIN_PASSWORD,
    }
    subprocess.run(
        [sys.executable, ROOT / "infra/mlflow/add_user.py", name],
        env={**os.environ, **administrator},
        input=f"{password}\n",
        text=True,
        check=True,
    )


def use_production_home(root: Path) -> None:
    """Give the project at `root` the Dagster instance of a deployment."""
    home = root / ".work" / "dagster"
    home.mkdir(parents=True)
    shutil.copy(root / "infra/dagster/production.yaml", home / "dagster.yaml")
