"""Checkpoint folders: exact round trip, complete or absent, and clear errors for weights that do not fit."""

from pathlib import Path

import pytest
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from alto_models.checkpoint import load_config, load_strictly, load_tensors, save_checkpoint
from data_contracts.errors import InputError


class Sizes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model", Sizes(), network().state_dict())
    return tmp_path / "model"


def test_round_trip_is_bit_exact(folder: Path) -> None:
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_strictly(other, load_tensors(folder), "folder")
    for name, tensor in network().state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    assert load_config(folder, Sizes) == Sizes()


def test_same_weights_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "again", Sizes(), dict(reversed(network().state_dict().items())))
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_failed_write_leaves_no_complete_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("alto_models.checkpoint.save_file", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(folder, Sizes(), network().state_dict())
    with pytest.raises(InputError, match="config.json is missing"):
        load_config(folder, Sizes)


def test_missing_tensor_is_named(folder: Path) -> None:
    tensors = load_tensors(folder)
    del tensors["0.bias"]
    with pytest.raises(InputError, match=r"model: 1 missing tensor \(0.bias\)"):
        load_strictly(network(), tensors, "model")


def test_extra_tensor_is_named(folder: Path) -> None:
    tensors = load_tensors(folder) | {"2.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r"1 unexpected tensor \(2.weight\)"):
        load_strictly(network(), tensors, "model")


def test_wrong_shape_is_named(folder: Path) -> None:
    tensors = load_tensors(folder) | {"0.bias": torch.zeros(5)}
    with pytest.raises(InputError, match=r"0.bias has shape \(5,\).*needs \(4,\)"):
        load_strictly(network(), tensors, "model")


@pytest.mark.parametrize("content", [b"", b"not tensors at all", b"\xff" * 64])
def test_broken_tensor_file(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_tensors(folder)


def test_truncated_tensor_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_tensors(folder)


@pytest.mark.parametrize("text", ['{"width": "wide"}', '{"height": 1}', "{"])
def test_config_that_does_not_fit(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match="config.json"):
        load_config(folder, Sizes)


def test_folder_without_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint here"):
        load_tensors(tmp_path)
