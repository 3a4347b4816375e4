"""A project with two committed versions of a language model, measured, registered and in DVC's cache."""

import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import yaml
from dvc.repo import Repo

from jobs.runner.registry import CHALLENGER, CHAMPION, LEDGER_FILE, PARAMETERS_FILE
from orchestration.promotion.champion import ALTOLLM, TOKENIZER, Registry
from tests.jobs.test_benchmark import run_benchmark
from tests.orchestration.promotion.answers import write_answers

PROFILE = "smoke"
MODEL = f"models/{PROFILE}/altollm_grpo"
PREPARED = f"data/{PROFILE}/prepare_benchmark/scenes"
RESULTS = f"reports/{PROFILE}/benchmark/scenes"
EACH = {"matrix": {"benchmark": "${benchmark.benchmarks}"}}
PREPARED_EACH, RESULTS_EACH = (path.replace("scenes", "${item.benchmark}") for path in (PREPARED, RESULTS))
GRAPH = {
    "prepare_benchmark": {**EACH, "cmd": "true", "outs": [PREPARED_EACH]},
    "tokenizer_stage1_5": {
        "cmd": "true",
        "params": ["tokenizer_stage1_5"],
        "outs": [f"models/{PROFILE}/tokenizer_stage1_5"],
    },
    "tokenizer_benchmark": {
        "cmd": "true",
        "deps": [f"models/{PROFILE}/tokenizer_stage1_5"],
        "outs": [f"reports/{PROFILE}/tokenizer_benchmark"],
    },
    "altollm_grpo": {"cmd": "true", "deps": ["code.py"], "params": ["altollm_grpo"], "outs": [MODEL]},
    "benchmark": {**EACH, "cmd": "true", "deps": [PREPARED_EACH, MODEL], "outs": [RESULTS_EACH]},
}


def create(root: Path) -> Path:
    """Versions 1 (champion) and 2 (challenger, better) of `altollm`, which are the last two commits. MLflow is told by
    the environment where it is."""
    root.mkdir()
    (root / "dvc.yaml").write_text(yaml.safe_dump({"vars": ["partitions.yaml"], "stages": GRAPH}))
    (root / "partitions.yaml").write_text("benchmark: {benchmarks: [scenes]}\n")
    (root / ".gitignore").write_text("/data/\n/models/\n/reports/\n/.work/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    with chdir(root):
        Repo.init().close()
    measured = run_benchmark(root.parent / "scratch", images=6)
    prepared = root.parent / "scratch" / "prepared" / "scenes"
    shutil.copytree(prepared, root / PREPARED)
    (root / PREPARED / "report.json").write_text('{"figures": {"rows_accepted": 6}, "checks": []}')
    registry = Registry(root)
    for model in (TOKENIZER, ALTOLLM):
        registry.client.create_registered_model(model)
    artifacts = (root.parent / "artifacts").as_uri()
    experiment = registry.client.create_experiment("alto", artifact_location=artifacts)
    for steps, iou in ((100, 0.3), (150, 0.9)):
        write_version(root, measured, steps, iou)
        for model in (TOKENIZER, ALTOLLM):
            register(registry, root, experiment, model)
    registry.client.set_registered_model_alias(ALTOLLM, CHAMPION, "1")
    registry.client.set_registered_model_alias(ALTOLLM, CHALLENGER, "2")
    return root


def write_version(root: Path, measured: Path, steps: int, iou: float) -> None:
    parameters = {
        "profile": PROFILE,
        "seed": 7,
        "tokenizer_stage1_5": {"length_weight": 1 / steps},
        "altollm_grpo": {"steps": steps},
    }
    (root / PARAMETERS_FILE).write_text(yaml.safe_dump(parameters))
    (root / "code.py").write_text(f"STEPS = {steps}\n")
    for folder in (MODEL, RESULTS):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    (root / MODEL / "config.json").write_text(str(steps))
    write_answers(measured, root / RESULTS, iou)
    with chdir(root), Repo() as repo:
        for stage in ("prepare_benchmark@scenes", "altollm_grpo", "benchmark@scenes"):
            repo.commit(stage, force=True)
    settings = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for command in (["add", "-A"], [*settings, "commit", "-qm", f"{steps} steps"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def register(registry: Registry, root: Path, experiment: str, model: str) -> None:
    run = registry.client.create_run(experiment)
    for name in (PARAMETERS_FILE, LEDGER_FILE):
        registry.client.log_artifact(run.info.run_id, str(root / name))
    registry.client.create_model_version(model, f"{root}/{MODEL}", run.info.run_id)
