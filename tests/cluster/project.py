"""The smoke lineage in a project whose jobs go to a test cluster."""

from pathlib import Path
from typing import Any

import yaml

from tests.lineage.project import copy_repository


def cluster_project(target: Path, resources: dict[str, Any], site: dict[str, Any] | None = None) -> Path:
    """A copy of this repository, profile `smoke`, with these resources and settings of Slurm changed."""
    root = copy_repository(target)
    change(root / "params.yaml", "resources", {"launcher": "slurm", **resources})
    change(root / "infra/slurm/settings.yaml", "slurm", {"seconds_between_looks": 0.5, **(site or {})})
    return root


def change(file: Path, section: str, values: dict[str, Any]) -> None:
    content = yaml.safe_load(file.read_text())
    content[section] |= values
    file.write_text(yaml.safe_dump(content, sort_keys=False))
