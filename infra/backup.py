"""Back up and restore what is in neither git nor the DVC remote: databases and MLflow's artifacts.

    python infra/backup.py save FOLDER --databases dagster mlflow --artifacts s3://BUCKET/PREFIX
    python infra/backup.py restore FOLDER --databases dagster mlflow --artifacts s3://BUCKET/PREFIX

Where PostgreSQL is and how to get in comes from libpq's variables (PGHOST, PGPORT, PGUSER, PGPASSWORD), the bucket's
keys from where boto3 looks. `restore` makes the databases anew and refuses one that exists. pg_dump and pg_restore are
those on the path; PG_PROGRAMS names another folder.
"""

import argparse
import os
import subprocess
from pathlib import Path

import s3fs


def save(folder: Path, databases: list[str], artifacts: str) -> None:
    """Databases first: artifacts of runs recorded after that are then in the backup, too, and nothing points at air."""
    folder.mkdir(parents=True)
    for name in databases:
        run("pg_dump", "--format=custom", f"--file={folder / name}.dump", name)
    store = s3fs.S3FileSystem()
    if store.exists(artifacts):
        store.get(artifacts.rstrip("/"), str(folder / "artifacts"), recursive=True)


def restore(folder: Path, databases: list[str], artifacts: str) -> None:
    for name in databases:
        run("createdb", name)
        run("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={name}", str(folder / f"{name}.dump"))
    if (folder / "artifacts").is_dir():
        s3fs.S3FileSystem().put(f"{folder / 'artifacts'}/", f"{artifacts.rstrip('/')}/", recursive=True)


def run(program: str, *arguments: str) -> None:
    found = os.path.join(os.environ.get("PG_PROGRAMS", ""), program)
    subprocess.run([found, *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("save", "restore"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--databases", nargs="+", required=True)
    parser.add_argument("--artifacts", required=True, help="MLFLOW_ARTIFACTS_DESTINATION of the server")
    options = parser.parse_args()
    action = {"save": save, "restore": restore}[options.action]
    action(options.folder, options.databases, options.artifacts)


if __name__ == "__main__":
    main()
