"""`params.yaml` from a profile: a base and a short difference."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from data_contracts.errors import InputError
from jobs.runner.lineage import read_yaml
from jobs.runner.whole_file import write_whole

OPEN_SECTIONS = (
    "datasets",
    "benchmarks",
    "needs",
)  # keyed by partition or stage: a profile may have keys of its own


def profile_names(root: Path) -> list[str]:
    return sorted({path.stem for path in (root / "infra" / "profiles").glob("*.yaml")} - {"base"} | {"small"})


def render_profile(root: Path, name: str) -> str:
    """Content of `params.yaml` for a profile. Raises InputError for an unknown profile or an unknown key in it."""
    if name not in profile_names(root):
        raise InputError(f"unknown profile {name!r}: choose one of {', '.join(profile_names(root))}")
    folder = root / "infra" / "profiles"
    parameters = read_yaml(folder / "base.yaml")
    if name != "small":
        parameters = override(parameters, read_yaml(folder / f"{name}.yaml"), f"infra/profiles/{name}.yaml")
    header = (
        f"# Written by `alto profile {name}` from infra/profiles; edit values here, or a profile there.\n"
    )
    return header + yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True, width=110)


def override(
    base: Mapping[str, Any], changes: Mapping[str, Any], where: str, new_keys: bool = False
) -> dict[str, Any]:
    """`base` with the values of `changes`; every key of `changes` must exist in `base`.

    Open sections take new keys (`new_keys`), for a profile may have data sets of its own. Two sections
    are taken from `changes` as they are: one that is empty in `base`, and one of another `kind` or `source` than in
    `base`, which has keys of its own.
    """
    merged = dict(base)
    for key, value in changes.items():
        if key not in base and new_keys:
            merged[key] = deepcopy(value)
            continue
        if key not in base:
            raise InputError(f"{where}: {key} is not a parameter of infra/profiles/base.yaml")
        both_nested = isinstance(value, Mapping) and isinstance(base[key], Mapping)
        if both_nested and base[key] and not _another_variant(base[key], value):
            merged[key] = override(base[key], value, f"{where}: {key}", key in OPEN_SECTIONS)
        else:
            # A copy, so that what YAML anchors share is written out.
            merged[key] = deepcopy(value)
    return merged


def _another_variant(base: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    return any(key in base and changes.get(key, base[key]) != base[key] for key in ("kind", "source"))


def write_profile(root: Path, name: str) -> Path:
    """Replace `params.yaml` atomically."""
    path = root / "params.yaml"
    write_whole(path, render_profile(root, name))
    return path
