"""A converted InternVL-Chat checkpoint computes what it computed before, or is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, AutoTokenizer, InternVLForConditionalGeneration
from typer.testing import CliRunner

from alto_models.altollm.checkpoint import load_llm
from alto_models.published import convert_altollm as conversion
from alto_models.published.chat_tokenizer import load_chat_tokenizer
from alto_models.published.convert_altollm import convert_altollm, needed_shapes
from data_contracts.errors import InputError
from orchestration.cli import app
from tests.alto_models.published.internvl_chat_folder import (
    IMAGE_TOKEN_ID,
    VOCABULARY,
    network,
    published_tensors,
    write_folder,
    write_shards,
    write_tokenizer,
)
from tests.alto_models.published.internvl_sizes import INTERNVL2_5_8B

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


def test_published_sizes_of_the_8b_model(tmp_path: Path) -> None:
    """InternVL2.5-8B stores 16,150,730,752 bytes in bfloat16 (its index, `total_size`)."""
    write_tokenizer(tmp_path)
    tokenizer = load_chat_tokenizer(tmp_path, 92553)
    needed = needed_shapes(INTERNVL2_5_8B.to_transformers(tokenizer, IMAGE_TOKEN_ID))
    assert 2 * sum(shape.numel() for shape in needed.values()) == 16_150_730_752


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


@needs_golden
def test_command(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", "altollm", str(GOLDEN), str(tmp_path / "converted")])
    assert done.exit_code == 0
    assert "94 tensors in 1 file(s), 0 left out" in done.output
