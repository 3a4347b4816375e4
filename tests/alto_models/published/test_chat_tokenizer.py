"""Tokenizers of published checkpoints: the same ids, whatever the files they come in."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import import_protobuf

from alto_models.published.chat_tokenizer import load_chat_tokenizer
from alto_models.published.sentencepiece_bpe import convert_sentencepiece
from data_contracts.errors import InputError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
MERGED = ["ca", "ke", "▁c", "cake", "▁cake", "aa", "▁▁", "▁a", "ak"]
LETTERS = ["▁", "a", "c", "e", "k", "é"]


def sentencepiece_model(**normalizer: bool) -> Any:
    """A BPE model as InternLM2's: special tokens, bytes, pieces in the order they were learned, spare ones."""
    proto = import_protobuf().ModelProto()
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    proto.trainer_spec.unk_piece = "<unk>"
    for name in ("add_dummy_prefix", "remove_extra_whitespaces"):
        setattr(proto.normalizer_spec, name, normalizer.get(name, False))
    pieces = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    pieces += [(f"<0x{value:02X}>", BYTE) for value in range(256)]
    pieces += [(piece, NORMAL) for piece in (*MERGED, *LETTERS)]
    pieces += [("[UNUSED_TOKEN_1]", NORMAL), ("[UNUSED_TOKEN_2]", USER_DEFINED)]
    for number, (piece, kind) in enumerate(pieces):
        proto.pieces.add(piece=piece, type=kind, score=-float(number) if kind == NORMAL else 0.0)
    return proto


def reference_ids(proto: Any, text: str) -> list[int]:
    """Greedy BPE as published: again and again join the pair with the best score, the leftmost first."""
    score = {piece.piece: piece.score for piece in proto.pieces if piece.type == NORMAL}
    number = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    if proto.normalizer_spec.remove_extra_whitespaces:
        text = " ".join(word for word in text.split(" ") if word)
    if proto.normalizer_spec.add_dummy_prefix and text:
        text = " " + text
    symbols = list(text.replace(" ", "▁"))
    while True:
        pairs = [
            (score[left + right], -place)
            for place, (left, right) in enumerate(zip(symbols, symbols[1:], strict=False))
            if left + right in score
        ]
        if not pairs:
            break
        place = -max(pairs)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    ids: list[int] = []
    for symbol in symbols:
        known = symbol in score
        ids += [number[symbol]] if known else [3 + byte for byte in symbol.encode()]
    return ids


@pytest.mark.parametrize("add_dummy_prefix", [False, True])
@pytest.mark.parametrize("remove_extra_whitespaces", [False, True])
@given(texts=st.lists(st.text(alphabet="acke é\nx世", max_size=20), min_size=20, max_size=20))
@settings(max_examples=5, deadline=None)
def test_sentencepiece_ids(
    tmp_path_factory: pytest.TempPathFactory,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    texts: list[str],
) -> None:
    proto = sentencepiece_model(
        add_dummy_prefix=add_dummy_prefix, remove_extra_whitespaces=remove_extra_whitespaces
    )
    path = tmp_path_factory.mktemp("model") / "tokenizer.model"
    path.write_bytes(proto.SerializeToString())
    tokenizer = convert_sentencepiece(path, {})
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert ids == reference_ids(proto, text)
        if not remove_extra_whitespaces:
            assert tokenizer.decode(ids) == text


def write_sentencepiece_folder(folder: Path, **settings_: object) -> tuple[Path, dict[int, str]]:
    """A folder as InternLM2's, whose added tokens replace a spare piece and go on after the last."""
    proto = sentencepiece_model()
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    size = len(proto.pieces)
    added = {1: "<s>", size - 2: "<|im_end|>", size: "<IMG_CONTEXT>", size + 1: "<TOK_0>"}
    config = {
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "tokenizer_class": "InternLM2Tokenizer",
        "added_tokens_decoder": {
            number: {"content": token, "special": True, "rstrip": token == "<s>"}
            for number, token in added.items()
        },
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": "{{ messages }}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config | settings_))
    return folder, added


def test_sentencepiece_folder_loads_with_transformers_alone(tmp_path: Path) -> None:
    folder, added = write_sentencepiece_folder(tmp_path)
    load_chat_tokenizer(folder, 300).save_pretrained(tmp_path / "converted")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    for number, token in added.items():
        assert tokenizer.convert_tokens_to_ids(token) == number
        assert tokenizer.convert_ids_to_tokens(number) == token
    assert tokenizer.chat_template == "{{ messages }}"
    words = reference_ids(sentencepiece_model(), "a cake")
    assert tokenizer("<s>  a cake", add_special_tokens=False)["input_ids"] == [1, *words]
    numbers = {token: number for number, token in added.items()}
    assert tokenizer("a cake<TOK_0><|im_end|>")["input_ids"] == [
        *(1, *words),
        *(numbers["<TOK_0>"], numbers["<|im_end|>"]),
    ]
    assert tokenizer.decode(words + [numbers["<TOK_0>"]], skip_special_tokens=True) == "a cake"


def test_no_start_token_where_the_published_tokenizer_adds_none(tmp_path: Path) -> None:
    folder, _ = write_sentencepiece_folder(tmp_path, add_bos_token=False)
    load_chat_tokenizer(folder, 300).save_pretrained(tmp_path / "converted")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    assert tokenizer("a cake")["input_ids"] == reference_ids(sentencepiece_model(), "a cake")


def test_merges_folder_loads_with_transformers_alone(tmp_path: Path) -> None:
    vocabulary = {piece: number for number, piece in enumerate(["a", "b", "Ġ", "ab", "Ġab", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nĠ ab\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<IMG_CONTEXT>": 7, "<|im_end|>": 6}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    load_chat_tokenizer(tmp_path, 8).save_pretrained(tmp_path / "converted")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    assert tokenizer("ab ab<IMG_CONTEXT>b<|im_end|>")["input_ids"] == [3, 4, 7, 1, 6]
    assert tokenizer.eos_token_id == 6


def test_id_without_an_embedding(tmp_path: Path) -> None:
    folder, added = write_sentencepiece_folder(tmp_path)
    load_chat_tokenizer(folder, max(added) + 1)
    with pytest.raises(
        InputError, match=f"has id {max(added)}, the model has embeddings for {max(added)} tokens"
    ):
        load_chat_tokenizer(folder, max(added))


def test_token_that_would_get_another_id(tmp_path: Path) -> None:
    vocabulary = {"a": 0, "<|endoftext|>": 1}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<IMG_CONTEXT>": 5}))
    with pytest.raises(InputError, match="'<IMG_CONTEXT>' should have id 5, but has 2"):
        load_chat_tokenizer(tmp_path, 8)


def test_named_token_that_is_not_there(tmp_path: Path) -> None:
    folder, _ = write_sentencepiece_folder(tmp_path, pad_token={"content": "<pad>"})
    with pytest.raises(InputError, match="pad_token '<pad>' is not in"):
        load_chat_tokenizer(folder, 300)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{", "tokenizer.json: not a tokenizer"),
        ("tokenizer.model", "\xff", "not a sentencepiece model"),
        ("tokenizer.model", "", "only sentencepiece models of type BPE"),
        ("tokenizer_config.json", "[", "tokenizer_config.json: not JSON"),
        ("tokenizer_config.json", "[]", "not a JSON object"),
        ("added_tokens.json", '{"a": "b"}', "added tokens cannot be read"),
        ("README.md", "", "no tokenizer here"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    (tmp_path / file).write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=message):
        load_chat_tokenizer(tmp_path, 300)


def test_added_token_takes_the_place_of_a_spare_piece(tmp_path: Path) -> None:
    proto = sentencepiece_model()
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    spare = len(proto.pieces) - 1
    token = AddedToken("<|im_start|>", normalized=False, special=True)
    tokenizer = convert_sentencepiece(tmp_path / "tokenizer.model", {spare: token})
    assert tokenizer.encode("a<|im_start|>a").ids == [
        *reference_ids(proto, "a"),
        spare,
        *reference_ids(proto, "a"),
    ]
    assert tokenizer.token_to_id("[UNUSED_TOKEN_2]") is None
