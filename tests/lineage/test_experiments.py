"""DVC experiments on a real training stage: in a copy that DVC removes, and in the project itself."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lineage.project import copy_repository, data_versions, plan, repro, run

pytestmark = pytest.mark.slow

STAGE = "tokenizer_stage1"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Profile `smoke` with one batch, up to the first training stage, committed."""
    root = copy_repository(tmp_path_factory.mktemp("experiments") / "project")
    partitions = yaml.safe_load((root / "partitions.yaml").read_text())
    partitions["sa1b"]["batches"] = ["batch_000"]
    (root / "partitions.yaml").write_text(yaml.safe_dump(partitions))
    run(root, "-m", "dvc", "repro", STAGE)
    commit(root)
    return root


def commit(root: Path) -> None:
    settings = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for command in (["add", "-A"], [*settings, "commit", "-qm", "state"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def experiment(root: Path, name: str, *arguments: str) -> None:
    who = {
        f"GIT_{role}_{what}": "a@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    run(root, "-m", "dvc", "exp", "run", "--name", name, *arguments, STAGE, variables=who)


def mlflow_runs(root: Path) -> list[dict[str, Any]]:
    """Tags of the runs in the project's own store, the newest first."""
    script = (
        "import json, pathlib; from jobs.runner.tracking import use_project_store\n"
        "use_project_store(pathlib.Path.cwd())\n"
        "from mlflow import MlflowClient\n"
        "client = MlflowClient(); [one] = [e for e in client.search_experiments() if e.name == 'alto-smoke']\n"
        "print(json.dumps([run.data.tags for run in client.search_runs([one.experiment_id])]))"
    )
    return json.loads(run(root, "-c", script).stdout.splitlines()[-1])


def test_experiments_run_show_apply_and_leave_the_pipeline_alone(project: Path) -> None:
    before = data_versions(project)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True
    ).stdout.strip()
    experiment(project, "apart", "--temp", "--set-param", f"{STAGE}.steps=17")

    assert data_versions(project) == before
    assert not subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True).stdout
    of_experiment, of_pipeline = mlflow_runs(project)
    assert (of_experiment["experiment"], of_experiment["baseline_commit"]) == ("apart", head)
    assert of_experiment["git_commit"] == f"{head}-dirty"
    assert "experiment" not in of_pipeline

    metrics = f"models/smoke/{STAGE}/report.json"
    shown = json.loads(run(project, "-m", "dvc", "exp", "diff", "--json", "HEAD", "apart").stdout)
    assert shown["params"]["params.yaml"][f"{STAGE}.steps"] == {"old": 16, "new": 17, "diff": 1}
    assert shown["metrics"][metrics]["figures.steps"]["new"] == 17

    # DVC also tries to check out what has never run here, says so and ends with an error.
    applied = run(project, "-m", "dvc", "exp", "apply", "apart", check=False)
    failed = applied.stderr.partition("Checkout failed for following targets:")[2].split()
    assert f"models/smoke/{STAGE}" not in failed
    assert data_versions(project)[STAGE] != before[STAGE]
    assert plan(project)[STAGE] == "no"
    assert repro(project, STAGE) == []

    experiment(project, "here", "--set-param", f"{STAGE}.steps=18")
    newest = mlflow_runs(project)[0]
    assert (newest["experiment"], newest["baseline_commit"]) == ("here", head)
