"""A real registry: what has an alias, is needed for a rollback or is pinned stays, and can be loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from orchestration.housekeeping.mlflow_models import (
    CHECKPOINT,
    DELETED_RUN,
    MARK,
    VERSION,
    MlflowModels,
    pages,
)
from orchestration.housekeeping.part import LeftOut
from orchestration.housekeeping.rules import Verdict
from orchestration.housekeeping.run import clean
from orchestration.promotion.champion import ALTOLLM, CHAMPION_FILE, PREVIOUS, TOKENIZER, Registry
from orchestration.trained_models import find_folder
from tests.orchestration.housekeeping.ending import clean_and_be_killed, in_days, names, retention, why

MANY = in_days(400)
# altollm: each but 1 and 2 on a tokenizer of its own. 6 is champion, 4 was before it, 2 before that, 1 before that.
CHAMPIONS = {"6": "4", "4": "2", "2": "1"}
VERSIONS = 9
KEEP = {"days": 90, "newest": 1, "past_champions": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("registry")
    (root / "infra").mkdir()
    (root / "params.yaml").write_text("base_weights: {altollm: {folder: data/champion/altollm-3}}\n")
    (root / "dvc.lock").write_text(
        f"stages: {{altollm_grpo: {{outs: [{{md5: {data_version(ALTOLLM, 8)}}}]}}}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        use_store(root, patch)
        client = Registry(root).client
        experiment = client.create_experiment("alto", artifact_location=(root / "artifacts").as_uri())
        for model in (TOKENIZER, ALTOLLM):
            client.create_registered_model(model)
            for number in range(1, VERSIONS + 1):
                register(client, experiment, root, model, number)
        client.set_registered_model_alias(ALTOLLM, "champion", "6")
        client.set_registered_model_alias(ALTOLLM, "challenger", "7")
        for number, before in CHAMPIONS.items():
            client.set_model_version_tag(ALTOLLM, number, PREVIOUS, before)
        client.set_registered_model_alias(TOKENIZER, "champion", "6")
        client.delete_model_version_tag(TOKENIZER, "5", "stage")  # registered by hand
        pinned = {ALTOLLM: {"version": "5"}, TOKENIZER: {"version": "6"}}
        (root / CHAMPION_FILE).write_text(json.dumps(pinned))
    return root


def data_version(model: str, number: int) -> str:
    return f"{number:030d}{'ab' if model == ALTOLLM else 'cd'}.dir"


def register(client: MlflowClient, experiment: str, root: Path, model: str, number: int) -> None:
    run = client.create_run(experiment)
    folder = root / "checkpoint"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(f"{model} {number}")
    client.log_artifacts(run.info.run_id, str(folder), "model")
    client.log_text(run.info.run_id, "seed: 1", "params.yaml")
    client.log_text(run.info.run_id, f"ledger of {model} {number}", "dvc.lock")
    tags = {"stage": "any", "data_version": data_version(model, number)}
    if model == ALTOLLM:
        tags["tokenizer_data_version"] = data_version(TOKENIZER, max(2, number))
    client.create_model_version(model, f"{run.info.artifact_uri}/model", run.info.run_id, tags=tags)


def use_store(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the registry; its artifacts, which it names by absolute paths, are where they were, and all there."""
    kept, artifacts = made.with_name("kept"), made / "artifacts"
    if not kept.exists():
        shutil.copytree(artifacts, kept)
    shutil.rmtree(artifacts)
    shutil.copytree(kept, artifacts)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("artifacts"))
    (tmp_path / "artifacts").symlink_to(artifacts)
    use_store(tmp_path, monkeypatch)
    return tmp_path


def part(root: Path, **sections: Any) -> MlflowModels:
    return MlflowModels(root, retention(**{"model_versions": KEEP} | sections))


def delete(root: Path, **sections: Any) -> list[Verdict]:
    return clean(part(root, **sections), 1.0, MANY, delete=True)


def versions(root: Path, model: str) -> set[str]:
    return {
        str(one.version) for one in pages(Registry(root).client.search_model_versions, f"name = '{model}'")
    }


def checkpoints(root: Path) -> set[str]:
    return {path.read_text() for path in (root / "artifacts").glob("*/artifacts/model/config.json")}


def test_ledgers_of_versions_are_read(root: Path) -> None:
    looked = part(root)
    assert looked.ledgers is None
    looked.find()
    assert looked.ledgers is not None
    numbers = range(1, VERSIONS + 1)
    assert sorted(looked.ledgers) == sorted(
        f"ledger of {model} {number}" for model in (TOKENIZER, ALTOLLM) for number in numbers
    )


def test_what_may_be_needed_stays_and_the_rest_goes(root: Path) -> None:
    verdicts = delete(root)
    assert versions(root, ALTOLLM) == {"2", "3", "4", "5", "6", "7", "8", "9"}
    reasons = {
        "2": "it was champion before, for a rollback",
        "3": "training starts from it (params.yaml)",
        "4": "it was champion before, for a rollback",
        "5": "infra/champion.json names it",
        "6": "it is the champion",
        "7": "it is the challenger",
        "8": "the ledger records the same checkpoint",
        "9": "the newest",
    }
    assert {number: why(verdicts, VERSION, f"{ALTOLLM} {number}") for number in reasons} == reasons
    assert versions(root, TOKENIZER) == {"2", "3", "4", "5", "6", "7", "8", "9"}, (
        "of each that stays its tokenizer"
    )
    assert why(verdicts, VERSION, f"{TOKENIZER} 2") == f"{VERSION} {ALTOLLM} 2 refers to it"
    assert names(verdicts, VERSION) == {f"{ALTOLLM} 1", f"{TOKENIZER} 1"}
    assert len(checkpoints(root)) == 16
    assert not any(verdict.removed for verdict in delete(root)), "a second call finds nothing"


def test_champion_and_those_before_it_load_and_can_be_rolled_back_to(root: Path, tmp_path: Path) -> None:
    delete(root)
    registry = Registry(root)
    for expected in ("6", "4", "2"):
        champion = registry.version(ALTOLLM, "champion")
        folder = find_folder(f"models:/{ALTOLLM}@champion", tmp_path / expected)
        assert (
            (folder / "config.json").read_text() == f"{ALTOLLM} {expected}" == f"{ALTOLLM} {champion.version}"
        )
        tokenizer = registry.tokenizer_of(champion)
        assert find_folder(f"models:/{TOKENIZER}/{tokenizer.version}", tmp_path / f"of_{expected}").is_dir()
        if expected != "2":
            registry.roll_back()


def test_parameters_and_curves_of_a_version_that_is_gone_stay(root: Path) -> None:
    client = Registry(root).client
    run_id = client.get_model_version(ALTOLLM, "1").run_id
    delete(root)
    assert [one.path for one in client.list_artifacts(run_id)] == ["dvc.lock", "params.yaml"]
    assert MARK not in client.get_run(run_id).data.tags


def test_young_and_newest_versions_stay(root: Path) -> None:
    soon = in_days(60)
    assert not any(verdict.removed for verdict in clean(part(root), 1.0, soon, delete=True))
    assert not names(delete(root, model_versions=KEEP | {"newest": 20}), VERSION)


def test_one_that_gets_an_alias_from_elsewhere_meanwhile_stays(root: Path) -> None:
    looked_at = part(root)
    found = [one.key for one in looked_at.find() if one.key.name == f"{ALTOLLM} 1"]
    Registry(root).client.set_registered_model_alias(ALTOLLM, "challenger", "1")
    looked_at.remove(found)
    assert "1" in versions(root, ALTOLLM)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "call"),
    [
        (MlflowClient, "set_tag"),
        (MlflowClient, "delete_model_version"),
        (LocalArtifactRepository, "delete_artifacts"),
    ],
)
def test_a_call_that_was_killed_is_finished_by_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch, where: type, call: str
) -> None:
    clean_and_be_killed(lambda: part(root), monkeypatch, where, call, 1, MANY)
    left = checkpoints(root)
    for model in (TOKENIZER, ALTOLLM):
        assert {f"{model} {number}" for number in versions(root, model)} <= left, (
            "every version has its checkpoint"
        )
    verdicts = delete(root)
    assert names(verdicts, CHECKPOINT, removed=False) == set()
    assert len(checkpoints(root)) == 16
    assert not any(verdict.removed for verdict in delete(root))


def test_deleted_runs_are_purged_but_for_those_with_a_version(root: Path) -> None:
    client = Registry(root).client
    experiment = client.get_experiment_by_name("alto").experiment_id
    lonely = client.create_run(experiment).info.run_id
    client.log_text(lonely, "x", "notes.txt")
    with_version = client.get_model_version(ALTOLLM, "6").run_id
    for run_id in (lonely, with_version):
        client.delete_run(run_id)
    assert not names(clean(part(root), 1.0, in_days(20), delete=True), DELETED_RUN)
    assert names(delete(root), DELETED_RUN) == {lonely}
    assert not any(path.is_file() for path in (root / "artifacts" / lonely).rglob("*"))
    assert f"{ALTOLLM} 6" in checkpoints(root)


def test_a_registry_that_is_away_is_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        LeftOut, match="^MLflow is not reachable, so what is registered is left out; try again"
    ):
        delete(root)
