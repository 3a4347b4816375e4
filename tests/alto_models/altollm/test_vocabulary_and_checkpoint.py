"""Token ids are looked up, what is missing is named, and a checkpoint comes back as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.conversation import is_no_target
from alto_models.altollm.processor import normalise, square_thumbnail
from alto_models.altollm.vocabulary import (
    MaskVocabulary,
    add_mask_vocabulary,
    build_word_tokenizer,
    mask_token,
    token_id,
)
from data_contracts.errors import InputError
from tests.alto_models.altollm.tiny import CODES, picture, untrained


def test_mask_tokens_are_single_tokens_with_looked_up_ids() -> None:
    tokenizer = build_word_tokenizer(["red", "star"])
    add_mask_vocabulary(tokenizer, CODES)
    vocabulary = MaskVocabulary.of(tokenizer)
    text = "red <ALTo_Start><TOK_3><TOK_0><ALTo_End>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[1:] == vocabulary.encode([3, 0])
    assert tokenizer.convert_ids_to_tokens(vocabulary.codes) == [mask_token(code) for code in range(CODES)]


def test_adding_the_vocabulary_again_moves_nothing() -> None:
    tokenizer = build_word_tokenizer(["red"])
    add_mask_vocabulary(tokenizer, CODES)
    before = tokenizer.get_vocab()
    add_mask_vocabulary(tokenizer, CODES)
    assert tokenizer.get_vocab() == before


def test_unknown_words_are_spelled_and_unknown_characters_are_unknown() -> None:
    tokenizer = build_word_tokenizer(["red"])
    spelled = tokenizer.convert_ids_to_tokens(tokenizer("Red cake é", add_special_tokens=False)["input_ids"])
    assert spelled == ["red", "c", "##a", "##k", "##e", "<unk>"]


def test_a_missing_special_token_is_named() -> None:
    with pytest.raises(InputError, match="<nowhere>"):
        token_id(build_word_tokenizer(["red"]), "<nowhere>")
    with pytest.raises(InputError, match="no mask tokens"):
        MaskVocabulary.of(build_word_tokenizer(["red"]))


@pytest.mark.parametrize("code", [-1, CODES])
def test_a_code_outside_the_codebook_is_named(code: int) -> None:
    with pytest.raises(InputError, match=str(code)):
        untrained().vocabulary.encode([0, code])


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    llm = untrained()
    llm.save(tmp_path / "first")
    again = AltoLLM.load(tmp_path / "first")
    again.save(tmp_path / "second")
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    tensors = again.model.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in llm.model.state_dict().items())
    images, prompts = [picture(1)] * 2, ["Segment <ref>the red star</ref>.", "Segment <ref>ring</ref>."]
    assert again.answer(images, prompts, max_length=4) == llm.answer(images, prompts, max_length=4)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json is missing"):
        AltoLLM.load(tmp_path)


def test_weights_with_a_missing_or_an_extra_tensor_are_refused(tmp_path: Path) -> None:
    untrained().save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"stray": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="unexpected keys.*stray"):
        AltoLLM.load(tmp_path)
    del tensors["language_model.model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="missing keys.*norm"):
        AltoLLM.load(tmp_path)


def test_a_broken_config_is_refused(tmp_path: Path) -> None:
    untrained().save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(InputError, match="not an InternVL checkpoint"):
        AltoLLM.load(tmp_path)


def test_the_whole_image_lands_in_the_upper_left_of_the_square() -> None:
    image = np.zeros((20, 40, 3), dtype=np.uint8)
    image[:, 20:] = 255
    square = square_thumbnail(image, 16)
    assert (square[:8, :8] == 0).all()
    assert (square[:8, 8:] == 255).all()
    padding = square[8:]
    assert (padding == padding[0, 0]).all()
    assert normalise(padding[None]).abs().max() < 0.02


def test_an_image_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        square_thumbnail(np.zeros((4, 4, 3)), 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is no such object.", True),
        ("there is no such object .", True),
        ("There is such object.", False),
        ("", False),
    ],
)
def test_refusals_are_recognised(text: str, expected: bool) -> None:
    assert is_no_target(text) == expected
