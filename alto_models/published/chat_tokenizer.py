"""The tokenizer of a published checkpoint folder, every token under its published id.

Read are, in this order: `tokenizer.json`; `tokenizer.model` (sentencepiece, InternLM2); `vocab.json` with
`merges.txt` (Qwen2). The tokenizer's own Python code, where the folder ships some, is not run.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alto_models.published.sentencepiece_bpe import convert_sentencepiece
from data_contracts.errors import InputError, first_line

_NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
_KEPT_SETTINGS = ("model_max_length", "padding_side", "chat_template")


def load_chat_tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerBase:
    """The tokenizer that `folder` ships, ready to be saved as a `tokenizer.json`.

    vocab_size: rows of the embeddings; every id is below it.
    Raises InputError where files are missing or broken, or a token would not get its published id.
    """
    settings = _read_json(folder / "tokenizer_config.json")
    added = _added_tokens(folder, settings)
    options: dict[str, Any] = {name: settings[name] for name in _KEPT_SETTINGS if settings.get(name)}
    if (folder / "chat_template.jinja").is_file():
        options["chat_template"] = (folder / "chat_template.jinja").read_text()
    if (folder / "tokenizer.json").is_file():
        tokenizer = _from_file(folder / "tokenizer.json")
    elif (folder / "tokenizer.model").is_file():
        tokenizer = convert_sentencepiece(folder / "tokenizer.model", added)
        options["add_bos_token"] = settings.get("add_bos_token", True)  # InternLM2's default
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = _from_merges(folder, added)
    else:
        raise InputError(
            f"{folder}: no tokenizer here (tokenizer.json, tokenizer.model, or vocab.json with merges.txt)"
        )
    _check_ids(tokenizer, added, vocab_size, folder)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **_named_tokens(folder, settings, tokenizer), **options
    )


def _from_file(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises for any broken file
        raise InputError(f"{path}: not a tokenizer ({first_line(error)}); copy it again") from error


def _from_merges(folder: Path, added: dict[int, AddedToken]) -> Tokenizer:
    from transformers import Qwen2Tokenizer

    try:
        tokenizer = Qwen2Tokenizer(
            vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
        ).backend_tokenizer
    except Exception as error:  # what the library raises for any broken file
        raise InputError(f"{folder}: vocab.json and merges.txt are no tokenizer; copy them again") from error
    tokenizer.add_tokens([added[number] for number in sorted(added)])
    return tokenizer


def _added_tokens(folder: Path, settings: dict[str, Any]) -> dict[int, AddedToken]:
    """Tokens that came after the vocabulary was learned, by id."""
    try:
        found = {
            int(number): AddedToken(token, normalized=False, special=True)
            for token, number in _read_json(folder / "added_tokens.json").items()
        }
        for number, token in settings.get("added_tokens_decoder", {}).items():
            found[int(number)] = AddedToken(
                token["content"],
                normalized=False,
                special=token.get("special", True),
                **{name: token.get(name, False) for name in ("lstrip", "rstrip", "single_word")},
            )
        return found
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: added tokens cannot be read; added_tokens.json holds name: id, "
            "added_tokens_decoder in tokenizer_config.json id: {content, special}"
        ) from error


def _named_tokens(folder: Path, settings: dict[str, Any], tokenizer: Tokenizer) -> dict[str, str]:
    mapped = _read_json(folder / "special_tokens_map.json") | settings
    named = {}
    for role in _NAMED_TOKENS:
        token = mapped.get(role)
        if token is None:
            continue
        named[role] = token["content"] if isinstance(token, dict) else token
        if tokenizer.token_to_id(named[role]) is None:
            raise InputError(f"{folder}: {role} {named[role]!r} is not in the tokenizer's vocabulary")
    return named


def _check_ids(tokenizer: Tokenizer, added: dict[int, AddedToken], vocab_size: int, folder: Path) -> None:
    for number, token in added.items():
        found = tokenizer.token_to_id(token.content)
        if found != number:
            raise InputError(f"{folder}: token {token.content!r} should have id {number}, but has {found}")
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= vocab_size:
        raise InputError(
            f"{folder}: the tokenizer has id {highest}, the model has embeddings for {vocab_size} tokens"
        )


def _read_json(path: Path) -> dict[str, Any]:
    """Content of an optional JSON object; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON; copy it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object; copy it again")
    return content
