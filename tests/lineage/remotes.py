"""DVC remotes, and clones that have the ledger and nothing else."""

import shutil
from pathlib import Path

from tests.lineage.project import copy_repository, run


def fresh_clone(project: Path, root: Path) -> Path:
    """What git would give: code, parameters, ledger and DVC's configuration, but no output and no cache."""
    copy_repository(root)
    for name in ("partitions.yaml", "params.yaml", "dvc.lock", ".dvc/config"):
        shutil.copy(project / name, root / name)
    return root


def add_remote(root: Path, url: str, endpoint: str | None) -> None:
    run(root, "-m", "dvc", "remote", "add", "--default", "storage", url)
    if endpoint is not None:
        run(root, "-m", "dvc", "remote", "modify", "storage", "endpointurl", endpoint)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files_with(root: Path, *secrets: str) -> list[str]:
    """Files below the root that hold a secret; the tests, which define them, are left out."""
    return [
        name
        for name, content in files_below(root).items()
        if not name.startswith("tests/") and any(secret.encode() in content for secret in secrets)
    ]
