"""The champion's checkpoints as what training starts from."""

import json
from pathlib import Path

import pytest
import yaml

from alto_models.weight_files import weights_sha256
from data_contracts.errors import InputError
from jobs.base_weights import Config
from orchestration.automation.warm_start import start_from_champion
from orchestration.promotion.champion import ALTOLLM, CHAMPION_FILE, TOKENIZER
from tests.lineage.project import ROOT


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose registry holds two versions of each model."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    client = MlflowClient()
    for model in (TOKENIZER, ALTOLLM):
        client.create_registered_model(model)
        for number in (1, 2):
            folder = tmp_path / "registered" / model / str(number)
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")
            (folder / "model.safetensors").write_bytes(f"{model} {number}".encode())
            client.create_model_version(model, folder.as_uri())
    return tmp_path


def pin(root: Path, version: str) -> None:
    (root / "infra").mkdir(exist_ok=True)
    pinned = {model: {"version": version, "data_version": "v"} for model in (TOKENIZER, ALTOLLM)}
    (root / CHAMPION_FILE).write_text(json.dumps(pinned))


def test_checkpoints_are_fetched_and_named_with_their_checksums(root: Path) -> None:
    before = yaml.safe_load((root / "params.yaml").read_text())
    for version in ("1", "2"):
        pin(root, version)
        assert start_from_champion(root) == [f"{TOKENIZER} {version}", f"{ALTOLLM} {version}"]
        after = yaml.safe_load((root / "params.yaml").read_text())
        config = Config.model_validate(after["base_weights"])
        for source, model in ((config.tokenizer, TOKENIZER), (config.altollm, ALTOLLM)):
            assert source is not None
            assert source.folder is not None
            weights = (root / source.folder / "model.safetensors").read_bytes()
            assert weights == f"{model} {version}".encode()
            assert source.sha256 == weights_sha256(root / source.folder)
        changed = {section for section in before if before[section] != after[section]}
        assert changed == {"base_weights", "tokenizer_stage1"}
        assert after["tokenizer_stage1"] == before["tokenizer_stage1"] | {"initial_weights": "base"}


def test_the_same_champion_changes_nothing(root: Path) -> None:
    pin(root, "1")
    start_from_champion(root)
    before = (root / "params.yaml").stat()
    start_from_champion(root)
    assert (root / "params.yaml").stat() == before


def test_without_a_champion_there_is_nothing_to_start_from(root: Path) -> None:
    with pytest.raises(InputError, match="there is no champion"):
        start_from_champion(root)
