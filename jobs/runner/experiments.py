"""DVC experiments: `dvc exp run` calls the commands that `dvc repro` calls, here or in a copy that it removes."""

import os
import subprocess
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

COPIES = (".dvc", "tmp", "exps")  # folders below a project that hold the copies


class Experiment(BaseModel):
    """name: as `dvc exp show` lists it. baseline: the commit that it changes something of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    baseline: str


def running_experiment() -> Experiment | None:
    """The one that DVC says it runs this command for."""
    name, baseline = (os.environ.get(key, "") for key in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"))
    return Experiment(name=name, baseline=baseline) if name and baseline else None


def lasting_root(root: Path) -> Path:
    """The project, also where `root` is a copy of it for one experiment; there lies what is to outlive that."""
    for folder in root.parents:
        if folder.parts[-len(COPIES) :] == COPIES:
            return folder.parents[len(COPIES) - 1]
    return root


def committed_versions(root: Path) -> dict[str, str]:
    """Address -> data version, as the ledger of the last commit says; empty where none is committed."""
    command = ["git", "-C", str(root), "show", "HEAD:./dvc.lock"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    if shown.returncode:
        return {}
    ledger = yaml.load(shown.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {address: entry["outs"][0]["md5"] for address, entry in ledger["stages"].items()}
