"""Conversations in a checkpoint's own format, its padding, its image size, and weights in several files."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from alto_models.altollm import checkpoint
from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.checkpoint import load_llm
from alto_models.altollm.conversation import Template, mask_answer_ids
from alto_models.altollm.grammar import MaskGrammar
from alto_models.altollm.network import grow_vocabulary
from alto_models.altollm.vocabulary import (
    MaskVocabulary,
    add_mask_vocabulary,
    build_word_tokenizer,
    padding_id,
)
from alto_models.published.convert_altollm import convert_altollm
from data_contracts.errors import InputError
from tests.alto_models.altollm.tiny import CODES, picture, untrained
from tests.alto_models.published.internvl_chat_folder import network, write_folder


def chat_tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """Bytes as words, special tokens as listed; texts begin with <s> where there is one."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.add_special_tokens(list(special))
    if "<s>" in special:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, **named)


def internlm2() -> PreTrainedTokenizerFast:
    special = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
    return chat_tokenizer(*special, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def qwen2() -> PreTrainedTokenizerFast:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return chat_tokenizer(*special, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@pytest.mark.parametrize(("tokenizer", "begin"), [(internlm2(), "<s>"), (qwen2(), "")])
def test_internvl_conversations_are_chatml(tokenizer: PreTrainedTokenizerFast, begin: str) -> None:
    add_mask_vocabulary(tokenizer, CODES)
    vocabulary = MaskVocabulary.of(tokenizer)
    template = Template.of(tokenizer)
    ids = [
        *template.image_ids(tokenizer, 2),
        *template.question_ids(tokenizer, "Segment <ref>the cake</ref>."),
        *mask_answer_ids(tokenizer, template, vocabulary.encode([3, 0])),
    ]
    text = "".join(tokenizer.convert_ids_to_tokens(ids))
    assert text.replace("Ġ", " ").replace("Ċ", "\n") == (
        f"{begin}<|im_start|>user\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\nSegment <ref>the cake</ref>.<|im_end|>\n"
        "<|im_start|>assistant\nThe mask appears at <ALTo_Start><TOK_3><TOK_0><ALTo_End>.<|im_end|>"
    )


def test_small_models_keep_their_own_format() -> None:
    tokenizer = build_word_tokenizer(["red"])
    template = Template.of(tokenizer)
    ids = [*template.image_ids(tokenizer, 1), *template.question_ids(tokenizer, "red")]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        *("<img>", "<IMG_CONTEXT>", "</img>", "<|user|>", "red", "<|assistant|>")
    ]


@pytest.mark.parametrize(
    ("special", "missing"),
    [
        (("</s>",), r"neither '<\|im_start\|>' nor '<\|user\|>'"),
        (("<|im_start|>",), r"no token '<\|im_end\|>'"),
        (("<|user|>", "<|im_end|>"), r"no token '<\|assistant\|>'"),
    ],
)
def test_a_missing_token_of_the_format_is_named(special: tuple[str, ...], missing: str) -> None:
    with pytest.raises(InputError, match=missing):
        Template.of(chat_tokenizer(*special))


@pytest.mark.parametrize(
    ("named", "padding"),
    [
        ({"pad_token": "</s>", "eos_token": "</s>"}, "</s>"),
        ({"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}, "<|endoftext|>"),
        ({"eos_token": "</s>"}, "</s>"),
        ({"pad_token": "<|im_end|>", "eos_token": "</s>"}, "</s>"),
    ],
)
def test_padding_is_the_tokenizers_own_and_never_ends_a_turn(named: dict[str, str], padding: str) -> None:
    tokenizer = chat_tokenizer("</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", **named)
    add_mask_vocabulary(tokenizer, CODES)
    assert tokenizer.convert_ids_to_tokens(padding_id(tokenizer)) == padding
    text = MaskGrammar(tokenizer, MaskVocabulary.of(tokenizer), len(tokenizer)).allowed[0]
    assert not text[padding_id(tokenizer)]
    assert text[tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_no_padding_beside_the_end_of_a_turn_is_named() -> None:
    with pytest.raises(InputError, match="pad_token"):
        padding_id(chat_tokenizer("<|im_end|>", eos_token="<|im_end|>"))


@pytest.mark.parametrize(("side", "tokens"), [(28, 4), (56, 16)])
def test_image_size_and_tokens_follow_from_the_published_size(tmp_path: Path, side: int, tokens: int) -> None:
    """Also where images are larger than those the position embeddings were made for (28 px here)."""
    source = write_folder(tmp_path / "published", network("internlm2"))
    config = json.loads((source / "config.json").read_text()) | {"force_image_size": side}
    (source / "config.json").write_text(json.dumps(config))
    convert_altollm(source, tmp_path / "converted")
    model, tokenizer = load_llm(tmp_path / "converted")
    grow_vocabulary(model, tokenizer, CODES)
    llm = AltoLLM(model.eval(), tokenizer)
    assert llm.image_size == side
    image = llm.encode_images([picture(1)])
    assert image.shape == (1, tokens, 24)
    assert llm.prefixes(image)[0].count(model.config.image_token_id) == tokens


def test_a_base_with_a_larger_codebook_is_refused() -> None:
    llm = untrained()
    with pytest.raises(InputError, match=f"{CODES} mask tokens"):
        grow_vocabulary(llm.model, llm.tokenizer, CODES - 1)


def test_weights_in_several_files_come_back_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "LARGEST_SHARD", "10KB")
    llm = untrained()
    llm.save(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    found = AltoLLM.load(tmp_path).model.state_dict()
    assert found.keys() == llm.model.state_dict().keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in llm.model.state_dict().items())
