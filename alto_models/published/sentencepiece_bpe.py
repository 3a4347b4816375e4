"""sentencepiece's `tokenizer.model` -> a `tokenizers` tokenizer with the same ids, without sentencepiece.

The file is a protobuf message; transformers ships its description and the way from pieces to merges.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers

from data_contracts.errors import InputError

_BPE = 2  # TrainerSpec.ModelType
_NORMAL, _USER_DEFINED = 1, 4  # SentencePiece.Type
_CONTROL = 3


def convert_sentencepiece(path: Path, added: dict[int, AddedToken]) -> Tokenizer:
    """The BPE model in `path`, in which `added` tokens take the ids they are listed under.

    Published InternLM2 tokenizers keep unused pieces for tokens that come later, so an added token may
    replace a piece. Raises InputError when the file is not such a model.
    """
    from transformers.convert_slow_tokenizer import SpmConverter, generate_merges

    proto = _read(path)
    pieces = {number: piece.piece for number, piece in enumerate(proto.pieces)}
    vocabulary = {piece: number for number, piece in (pieces | _contents(added)).items()}
    scores = {
        piece.piece: piece.score
        for number, piece in enumerate(proto.pieces)
        if piece.type == _NORMAL and number not in added
    }
    atoms = {piece for piece in vocabulary if piece not in scores}
    merges = generate_merges(vocabulary, scores, skip_tokens=atoms)
    tokenizer = SpmConverter.build_tokenizer_from_spm_proto(proto, vocabulary, merges)
    _set_spaces(tokenizer, proto)
    whole = {
        number: AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
        for number, piece in enumerate(proto.pieces)
        if piece.type in (_CONTROL, _USER_DEFINED)
    }
    tokenizer.add_tokens([token for _, token in sorted((whole | added).items())])
    return tokenizer


def _read(path: Path) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise InputError(f"{path}: not a sentencepiece model; copy it again") from error
    if proto.trainer_spec.model_type != _BPE or not proto.pieces:
        raise InputError(
            f"{path}: only sentencepiece models of type BPE are converted; ship a tokenizer.json"
        )
    return proto


def _contents(added: dict[int, AddedToken]) -> dict[int, str]:
    return {number: token.content for number, token in added.items()}


def _set_spaces(tokenizer: Tokenizer, proto: Any) -> None:
    """Spaces as the model was trained with: collapsed or kept, a word at the start marked like the others."""
    before: list[normalizers.Normalizer] = []
    if proto.normalizer_spec.remove_extra_whitespaces:
        before += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if proto.normalizer_spec.add_dummy_prefix:
        before += [normalizers.Prepend(" ")]
        tokenizer.decoder = decoders.Sequence(
            [tokenizer.decoder, decoders.Strip(content=" ", left=1, right=0)]
        )
    tokenizer.normalizer = normalizers.Sequence([*before, tokenizer.normalizer])
