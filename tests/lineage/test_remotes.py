"""Outputs in a DVC remote: pushed, found again by a fresh clone that has only the ledger, and never made anew."""

import json
from pathlib import Path

import pytest
import yaml

from tests.benchmarks import scale_project
from tests.jobs.acquisition.object_store import SECRET_KEY
from tests.jobs.runner.toy_project import assert_cache_is_sound
from tests.lineage.project import data_versions, plan, repro, run
from tests.lineage.remotes import add_remote, files_below, files_with, fresh_clone

pytestmark = pytest.mark.slow
BATCH = "data/smoke/prepare_sa1b/batch_001"


def recorded_project(root: Path) -> Path:
    """Every stage recorded, with stand-ins for the outputs: four shards in two batches."""
    scale_project.record_ledger(scale_project.create(root, shards=4, batches=2))
    return root


def assert_found_again(project: Path, clone: Path) -> None:
    """Neither door runs anything in a clone without outputs; what is asked for comes from the remote."""
    assert not (clone / "data").exists()
    assert repro(clone, "--allow-missing") == []
    assert set(plan(clone).values()) == {"no"}
    run(clone, "-m", "orchestration.cli", "sync")
    state = json.loads(run(clone, "-m", "tests.lineage.dagster_state").stdout.splitlines()[-1])
    assert state == {address: [version, "FRESH"] for address, version in data_versions(project).items()}
    run(clone, "-m", "tests.lineage.materialize", "prepare_sa1b@batch_001", "tokenizer_stage1")
    checks = json.loads(run(clone, "-m", "tests.lineage.check_state", "prepare_sa1b").stdout.splitlines()[-1])
    assert checks.keys() > set(scale_project.checks_of("prepare_sa1b"))
    assert all(checks.values())
    assert not (clone / "data").exists()

    run(clone, "-m", "dvc", "pull", BATCH)
    assert files_below(clone / "data") == {
        f"smoke/prepare_sa1b/batch_001/{name}": content
        for name, content in files_below(project / BATCH).items()
    }
    run(clone, "-m", "dvc", "pull")
    for folder in ("data", "models", "reports"):
        assert files_below(clone / folder) == files_below(project / folder)
    assert repro(clone) == []
    assert_cache_is_sound(clone)


def test_local_remote(tmp_path: Path) -> None:
    project = recorded_project(tmp_path / "project")
    add_remote(project, str(tmp_path / "storage"), None)
    run(project, "-m", "dvc", "push")
    assert_found_again(project, fresh_clone(project, tmp_path / "clone"))


def test_s3_remote_and_no_credential_in_any_file(tmp_path: Path, bucket: str) -> None:
    project = recorded_project(tmp_path / "project")
    add_remote(project, "s3://storage/dvc", bucket)
    printed = run(project, "-m", "dvc", "push", "-v")
    clone = fresh_clone(project, tmp_path / "clone")
    assert_found_again(project, clone)
    assert SECRET_KEY not in printed.stdout + printed.stderr
    assert files_with(project, SECRET_KEY) == files_with(clone, SECRET_KEY) == []


def test_a_batch_that_is_only_in_the_remote_is_not_left_out_of_training(tmp_path: Path) -> None:
    """A folder with one of two recorded batches is no input: a run would train on half the data."""
    project = recorded_project(tmp_path / "project")
    add_remote(project, str(tmp_path / "storage"), None)
    run(project, "-m", "dvc", "push")
    clone = fresh_clone(project, tmp_path / "clone")
    run(clone, "-m", "dvc", "pull", BATCH, "models/smoke/base_weights")
    lock = (clone / "dvc.lock").read_text()
    for command in (("-m", "jobs.tokenizer_stage1"), ("-m", "dvc", "repro", "-s", "tokenizer_stage1")):
        refused = run(clone, *command, check=False)
        assert refused.returncode != 0
        assert "needs data/smoke/prepare_sa1b/batch_000: run the stage that makes it" in refused.stderr
    assert yaml.safe_load((clone / "dvc.lock").read_text()) == yaml.safe_load(lock)
