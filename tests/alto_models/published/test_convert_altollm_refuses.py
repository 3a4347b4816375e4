"""What is not a published InternVL-Chat checkpoint is refused, naming file and tensor."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alto_models.published.convert_altollm import convert_altollm
from data_contracts.errors import InputError
from tests.alto_models.published.internvl_chat_folder import (
    network,
    published_tensors,
    write_folder,
    write_shards,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "published", network("internlm2"))


Damage = Callable[[dict[str, torch.Tensor]], object]
WQKV = "language_model.model.layers.1.attention.wqkv.weight"
QKV = "vision_model.encoder.layers.0.attn.qkv.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda tensors: tensors.pop(WQKV),
            r"no tensor gives language_model.*layers\.1.*k_proj.* and 2 more",
        ),
        (lambda tensors: tensors.pop("mlp1.3.bias"), "no tensor gives multi_modal_projector.linear_2.bias;"),
        (lambda tensors: tensors.update({"mlp1.7.bias": torch.zeros(1)}), r"mlp1\.7\.bias is not known"),
        (
            lambda tensors: tensors.update({"vision_model.encoder.layers.9.ls1": torch.zeros(16)}),
            r"layers\.9\.ls1 has no place",
        ),
        (
            lambda tensors: tensors.update({WQKV: tensors[WQKV][:-1].clone()}),
            r"layers\.1\.attention\.wqkv\.weight has shape \(47, 24\)",
        ),
        (
            lambda tensors: tensors.update({QKV: tensors[QKV][:-3].clone()}),
            r"qkv\.weight has shape \(45, 16\)",
        ),
        (
            lambda tensors: tensors.update({"mlp1.0.bias": torch.zeros(64, dtype=torch.int8)}),
            r"mlp1\.0\.bias is stored as I8",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    source: Path, tmp_path: Path, damage: Damage, message: str
) -> None:
    tensors = published_tensors(network("internlm2"))
    damage(tensors)
    write_shards(source, tensors, 2)
    with pytest.raises(InputError, match=message):
        convert_altollm(source, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_pickled_weights_are_refused(source: Path, tmp_path: Path) -> None:
    for path in source.glob("model*"):
        path.unlink()
    torch.save({}, source / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickled \(pytorch_model.bin\)"):
        convert_altollm(source, tmp_path / "converted")


def test_shard_that_is_missing_or_broken(source: Path, tmp_path: Path) -> None:
    shard = source / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(InputError, match="00002-of-00002.safetensors: not a readable"):
        convert_altollm(source, tmp_path / "converted")
    shard.unlink()
    with pytest.raises(InputError, match="00002-of-00002.safetensors: this shard is missing"):
        convert_altollm(source, tmp_path / "converted")


def test_index_that_disagrees_with_its_shards(source: Path, tmp_path: Path) -> None:
    shard = source / "model-00002-of-00002.safetensors"
    tensors = load_file(shard)
    save_file({name: tensors[name] for name in sorted(tensors)[1:]}, shard)
    with pytest.raises(InputError, match=f"{sorted(tensors)[0]} is missing in its shard"):
        convert_altollm(source, tmp_path / "converted")


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/model.safetensors", "model.bin", 7])
def test_index_may_only_name_shards_of_its_folder(source: Path, tmp_path: Path, shard: object) -> None:
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"mlp1.0.bias": shard}}))
    with pytest.raises(InputError, match=r"mlp1\.0\.bias is said to be in"):
        convert_altollm(source, tmp_path / "converted")


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (None, {"model_type": "llava"}, "model_type"),
        (None, {"ps_version": "v1"}, "ps_version"),
        ("llm_config", {"model_type": "phi3"}, "llm_config.*phi3"),
        ("llm_config", {"bias": None}, r"llm_config\.internlm2\.bias"),
        ("llm_config", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, r"rope_scaling\.type"),
        ("llm_config", {"num_key_value_heads": 3}, "multiple"),
        ("llm_config", {"hidden_act": "gelu"}, "hidden_act"),
        ("vision_config", {"qk_normalization": True, "layer_norm_eps": 1e-5}, "qk_normalization"),
    ],
)
def test_configuration_that_cannot_be_expressed(
    source: Path, tmp_path: Path, section: str | None, changes: dict[str, object], message: str
) -> None:
    config = json.loads((source / "config.json").read_text())
    (config[section] if section else config).update(changes)
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        convert_altollm(source, tmp_path / "converted")
