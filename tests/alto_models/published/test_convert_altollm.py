"""A converted InternVL-Chat checkpoint computes what it computed before, or is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, AutoTokenizer, InternVLForConditionalGeneration
from typer.testing import CliRunner

from alto_models.altollm.checkpoint import load_llm
from alto_models.published import convert_altollm as conversion
from alto_models.published.convert_altollm import convert_altollm
from alto_models.published.sharded_tensors import write_tensors
from data_contracts.errors import InputError
from orchestration.convert import app
from tests.alto_models.published.internvl_chat_folder import (
    IMAGE_TOKEN_ID,
    VOCABULARY,
    network,
    published_config,
    published_tensors,
    write_folder,
    write_shards,
    write_tokenizer,
)

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "internvl_tiny"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared is not there: no reference outputs")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "published", network("internlm2"))


def logits(model: InternVLForConditionalGeneration) -> torch.Tensor:
    ids = torch.tensor([[1, *[IMAGE_TOKEN_ID] * 4, 3, 4, 7, 8]])
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits


@needs_golden
def test_golden_logits(tmp_path: Path) -> None:
    convert_altollm(GOLDEN, tmp_path / "converted")
    golden = np.load(GOLDEN / "golden.npz")
    model, _ = load_llm(tmp_path / "converted")
    assert model.config.image_token_id == golden["image_token_id"]
    with torch.no_grad():
        found = model(
            input_ids=torch.from_numpy(golden["input_ids"]),
            pixel_values=torch.from_numpy(golden["pixel_values"]),
        )
    np.testing.assert_allclose(found.image_hidden_states.numpy(), golden["image_features"], atol=1e-3)
    np.testing.assert_allclose(found.logits.numpy(), golden["logits"], atol=1e-3)


@needs_golden
def test_golden_token_ids(tmp_path: Path) -> None:
    convert_altollm(GOLDEN, tmp_path / "converted")
    published = Tokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    assert tokenizer.get_vocab() == published.get_vocab()
    text = "<|im_start|> Segment <ref>the cake</ref>.<ALTo_Start><TOK_3><TOK_0><ALTo_End><|im_end|>"
    assert tokenizer(text)["input_ids"] == published.encode(text).ids


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"language_model": "internlm2", "qk_norm": True},
        {"language_model": "internlm2", "select_layer": -2},
        {"language_model": "qwen2"},
        {"language_model": "qwen2", "tied": True},
    ],
    ids=str,
)
def test_computes_the_same_with_transformers_alone(
    tmp_path: Path, options: dict[str, Any], shards: int
) -> None:
    original = network(**options)
    write_folder(tmp_path / "published", original, shards)
    convert_altollm(tmp_path / "published", tmp_path / "converted")
    model, notes = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "converted", output_loading_info=True, use_safetensors=True
    )
    assert not any(notes.values())
    assert isinstance(model, InternVLForConditionalGeneration)
    assert torch.equal(logits(model), logits(original))


def test_files_are_those_that_transformers_writes(source: Path, tmp_path: Path) -> None:
    convert_altollm(source, tmp_path / "converted")
    load_llm(tmp_path / "converted")[0].save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "converted" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == load_file(tmp_path / "saved" / "model.safetensors").keys()
    assert index["metadata"]["total_size"] == sum(
        tensor.nbytes for tensor in load_file(tmp_path / "saved" / "model.safetensors").values()
    )


def test_precision_is_kept(tmp_path: Path) -> None:
    write_folder(tmp_path / "published", network("internlm2").bfloat16())
    convert_altollm(tmp_path / "published", tmp_path / "converted")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "converted")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_same_source_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        convert_altollm(source, folder)
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == second


def test_generation_ends_at_the_end_of_text_and_of_the_turn(source: Path, tmp_path: Path) -> None:
    convert_altollm(source, tmp_path / "converted")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "converted")
    ends = model.generation_config.eos_token_id
    assert [VOCABULARY[end] for end in ends] == ["</s>", "<|im_end|>"]


def test_code_in_the_source_is_neither_run_nor_copied(source: Path, tmp_path: Path) -> None:
    (source / "modeling_internvl_chat.py").write_text("raise SystemExit('this was run')")
    (source / "LICENSE").write_text("terms")
    convert_altollm(source, tmp_path / "converted")
    assert not list((tmp_path / "converted").glob("*.py"))
    assert "auto_map" not in (tmp_path / "converted" / "config.json").read_text()
    assert (tmp_path / "converted" / "LICENSE").read_text() == "terms"


def test_mask_tokenizer_inside_is_left_out_and_counted(source: Path, tmp_path: Path) -> None:
    tensors = published_tensors(network("internlm2")) | {"mask_decoder.encoder.weight": torch.zeros(3)}
    write_shards(source, tensors, 2)
    assert convert_altollm(source, tmp_path / "converted").ignored == 1


def test_memory_stays_below_twice_the_largest_shard(tmp_path: Path) -> None:
    """Peak resident memory, mapped files included, of converting shards of 24 MiB."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        pytest.skip("only Linux tells a process its peak of resident memory")

    def mebibytes(field: str) -> float:
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024

    source = tmp_path / "published"
    source.mkdir()
    shard_mebibytes = 24.0
    largest = _write_wide_checkpoint(source, shard_mebibytes)
    convert_altollm(source, tmp_path / "warm_up")
    before = mebibytes("VmRSS")
    reset.write_text("5")
    convert_altollm(source, tmp_path / "converted")
    assert shard_mebibytes / 2 < largest <= shard_mebibytes
    assert mebibytes("VmHWM") - before < 2 * largest


def _write_wide_checkpoint(folder: Path, shard_mebibytes: float) -> float:
    """A checkpoint of about 100 MiB, written without holding it; returns the largest shard in MiB."""
    config = published_config(network("internlm2"))
    config["llm_config"] |= {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    small = published_tensors(network("internlm2"))
    shapes = {name: tensor for name, tensor in small.items() if not name.startswith("language_model")}
    wide = {
        "attention.wqkv.weight": (1024, 512),
        "attention.wqkv.bias": (1024,),
        "attention.wo.weight": (512, 512),
        "attention.wo.bias": (512,),
        "attention_norm.weight": (512,),
        "ffn_norm.weight": (512,),
        "feed_forward.w1.weight": (2048, 512),
        "feed_forward.w2.weight": (512, 2048),
        "feed_forward.w3.weight": (2048, 512),
    }
    with torch.device("meta"):
        shapes |= {
            "language_model.model.norm.weight": torch.empty(512),
            "language_model.model.tok_embeddings.weight": torch.empty(len(VOCABULARY), 512),
            "language_model.output.weight": torch.empty(len(VOCABULARY), 512),
            "mlp1.1.weight": torch.empty(512, 64),
            "mlp1.1.bias": torch.empty(512),
            "mlp1.3.weight": torch.empty(512, 512),
            "mlp1.3.bias": torch.empty(512),
        }
        for layer in range(6):
            for name, shape in wide.items():
                shapes[f"language_model.model.layers.{layer}.{name}"] = torch.empty(shape)
    shards: list[list[tuple[str, torch.Tensor]]] = [[]]
    for item in shapes.items():
        if sum(tensor.nbytes for _, tensor in [*shards[-1], item]) > shard_mebibytes * 2**20:
            shards.append([])
        shards[-1].append(item)
    weight_map = {}
    for number, shard in enumerate(shards):
        values = (torch.ones(tensor.shape) for _, tensor in shard)
        write_tensors(folder / f"{number}.safetensors", shard, values)
        weight_map |= {name: f"{number}.safetensors" for name, _ in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return max(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**20


def test_interrupted_conversion_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(conversion, "_write_rest", disk_full)
    with pytest.raises(OSError, match="No space"):
        convert_altollm(source, tmp_path / "converted")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_existing_folder_is_not_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "converted").mkdir()
    with pytest.raises(InputError, match="exists already"):
        convert_altollm(source, tmp_path / "converted")


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


@needs_golden
def test_command(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["altollm", str(GOLDEN), str(tmp_path / "converted")])
    assert done.exit_code == 0
    assert "94 tensors in 1 file(s), 0 left out" in done.output
