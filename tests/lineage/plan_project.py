"""A lineage of six stages whose jobs take milliseconds, and the two doors into it.

                                  base_weights ──┐
raw file → acquire_referring → prepare_referring ┼→ tokenizer_stage1 ┬→ tokenizer_benchmark
             (a data set each)                   └───────────────────┴→ altollm_sft
"""

import json
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dvc.repo import Repo

from assets.data import LIKE_THE_CHAMPIONS
from assets.described import Guide
from assets.drift import TRAINING_DATA
from assets.stage_asset import StageAsset, build_assets
from jobs.runner.job_spec import JobSpec
from jobs.runner.lineage import read_lineage
from jobs.runner.stage_lock import StageLock
from tests.lineage import plan_job

DATASETS = ("a", "b")
FOLDERS = {
    "base_weights": "models",
    "acquire_referring": "data",
    "prepare_referring": "data",
    "tokenizer_stage1": "models",
    "altollm_sft": "models",
    "tokenizer_benchmark": "reports",
}
PREPARED, TOKENIZER = "data/${profile}/prepare_referring", "models/${profile}/tokenizer_stage1"
BASE_WEIGHTS = "models/${profile}/base_weights"
READS = {
    "base_weights": ([], ["base_weights"]),
    "acquire_referring": (["raw/${item.dataset}.txt"], ["acquire_referring.datasets.${item.dataset}"]),
    "prepare_referring": (
        ["code/prepare.py", "code/shared", "data/${profile}/acquire_referring/${item.dataset}"],
        ["prepare_referring.datasets.${item.dataset}"],
    ),
    "tokenizer_stage1": (["code/shared", PREPARED, BASE_WEIGHTS], ["tokenizer_stage1"]),
    "altollm_sft": ([PREPARED, TOKENIZER], []),
    "tokenizer_benchmark": ([TOKENIZER], []),
}


def create(root: Path) -> Path:
    """A git and DVC repository with hard links from the cache; nothing has run."""
    (root / "code" / "shared").mkdir(parents=True)
    (root / "code" / "prepare.py").write_text("VERSION = 1\n")
    for name in ("text", "other"):
        (root / "code" / "shared" / f"{name}.py").write_text("VERSION = 1\n")
    (root / "raw").mkdir()
    datasets = {name: {"suffix": "prepared"} for name in DATASETS}
    for name in DATASETS:
        (root / "raw" / f"{name}.txt").write_text(f"raw {name}\n")
    parameters = {
        "profile": "toy",
        "seed": 1,
        "resources": {"needs": {"default": {"cpus": 1}}},
        "base_weights": {"folder": "champion-1", "licence": "none"},
        "acquire_referring": {"datasets": {name: {"version": "1"} for name in DATASETS}},
        "prepare_referring": {"datasets": datasets},
        "tokenizer_stage1": {"round_to": 10, "note": "none"},
    }
    (root / "params.yaml").write_text(json.dumps(parameters))
    (root / "partitions.yaml").write_text(yaml.safe_dump({"referring": {"datasets": list(DATASETS)}}))
    stages = {stage: stage_entry(stage) for stage in READS}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"vars": ["partitions.yaml"], "stages": stages}))
    (root / ".gitignore").write_text("/data/\n/models/\n/reports/\n/.work/\n")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True)
    with (root / ".dvc" / "config").open("a") as config:
        config.write("[core]\n    analytics = false\n[cache]\n    type = hardlink,copy\n")
    return root


def stage_entry(stage: str) -> dict[str, Any]:
    deps, params = READS[stage]
    partitioned = stage.endswith("_referring")
    name, below = (f"{stage}@${{item.dataset}}", "/${item.dataset}") if partitioned else (stage, "")
    output = f"{FOLDERS[stage]}/${{profile}}/{stage}{below}"
    return {
        **({"matrix": {"dataset": "${referring.datasets}"}} if partitioned else {}),
        "cmd": f"{sys.executable} -S {plan_job.__file__} {name} {output}",
        "deps": deps,
        "params": [*params, "seed"],
        "outs": [output],
    }


def by_dvc(root: Path) -> None:
    """What `dvc repro` does."""
    with chdir(root), Repo() as repo:
        repo.reproduce()


class Launcher:
    def launch_for(self, context: dg.AssetExecutionContext) -> Any:
        def launch(spec: JobSpec, lock: StageLock) -> None:
            root = next(folder for folder in spec.work.parents if folder.name == ".work").parent
            plan_job.run(root, spec.stage, spec.partition, spec.staging)

        return launch


def by_dagster(root: Path) -> None:
    """Materialize every partition of every asset, upstream first."""
    lineage = read_lineage(root)
    keys = lineage.stage("acquire_referring").partitions
    declared = [
        StageAsset(
            stage=stage,
            group="toy",
            description=stage,
            guide=Guide(reads="", good="", failing="", page="README.md"),
            kinds=frozenset({"python"}),
            checks=(LIKE_THE_CHAMPIONS,) if stage in TRAINING_DATA else (),
        )
        for stage in READS
    ]
    assets = build_assets(
        declared, lineage, {"referring.datasets": dg.StaticPartitionsDefinition(list(keys))}
    )
    data = [stage for stage in READS if stage.endswith("_referring")]
    with dg.DagsterInstance.ephemeral() as instance:
        runs = [(data, key) for key in keys] + [([stage for stage in READS if stage not in data], None)]
        for selection, partition in runs:
            dg.materialize(
                assets,
                selection=selection,
                partition_key=partition,
                instance=instance,
                resources={"launcher": Launcher()},
            )


DOORS = {"dvc": by_dvc, "dagster": by_dagster}


def jobs_run(root: Path) -> list[str]:
    path = root / ".work" / "runs"
    return path.read_text().split() if path.exists() else []


def data_versions(root: Path) -> dict[str, str]:
    entries = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    return {address: entry["outs"][0]["md5"] for address, entry in entries.items()}


def set_parameters(root: Path, **values: Any) -> None:
    """`section__key=value` for a nested one."""
    path = root / "params.yaml"
    parameters = json.loads(path.read_text())
    for name, value in values.items():
        *sections, key = name.split("__")
        target = parameters
        for section in sections:
            target = target[section]
        assert key in target, name
        target[key] = value
    path.write_text(json.dumps(parameters))
