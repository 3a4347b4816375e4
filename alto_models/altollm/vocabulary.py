"""The tokenizer of the language model, and the mask vocabulary added to it.

Token ids are always looked up by name: they differ from base model to base model.
"""

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_contracts.errors import InputError

MASK_START = "<ALTo_Start>"
MASK_END = "<ALTo_End>"
REFERENCE_START = "<ref>"
REFERENCE_END = "</ref>"
BOX_START = "<box>"
BOX_END = "</box>"
IMAGE_START = "<img>"
IMAGE_END = "</img>"
IMAGE_CONTEXT = "<IMG_CONTEXT>"
PADDING = "<|endoftext|>"
TURN_END = "<|im_end|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
TURN_START = "<|im_start|>"
UNKNOWN = "<unk>"

BASE_TOKENS = (
    *(PADDING, UNKNOWN, TURN_END, USER, ASSISTANT),
    *(IMAGE_START, IMAGE_END, IMAGE_CONTEXT, REFERENCE_START, REFERENCE_END, BOX_START, BOX_END),
)


def mask_token(code: int) -> str:
    """Name of the token of one codebook entry, counted from 0."""
    return f"<TOK_{code}>"


def build_word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole lower-case words for small models.

    Other words are spelled letter by letter, so any ASCII text can be read; other characters become `<unk>`.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    characters = string.ascii_lowercase + string.digits
    pieces = [*BASE_TOKENS, *string.punctuation, *characters, *(f"##{character}" for character in characters)]
    vocabulary = dict.fromkeys([*pieces, *sorted({word.lower() for word in words})])
    ids = {piece: index for index, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNKNOWN, continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PADDING, eos_token=TURN_END, unk_token=UNKNOWN
    )
    wrapped.add_tokens(list(BASE_TOKENS), special_tokens=True)
    return wrapped


def add_mask_vocabulary(tokenizer: PreTrainedTokenizerBase, codebook_size: int) -> None:
    """Add the tokens a mask is written with; those already there keep their ids."""
    wanted = [MASK_START, MASK_END, REFERENCE_START, REFERENCE_END, IMAGE_START, IMAGE_END, IMAGE_CONTEXT]
    wanted += [mask_token(code) for code in range(codebook_size)]
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([token for token in wanted if token not in known], special_tokens=True)


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of one token. Raises InputError where the tokenizer does not know it."""
    return _looked_up(tokenizer.get_vocab(), token)


def _looked_up(vocabulary: Mapping[str, int], token: str) -> int:
    found = vocabulary.get(token)
    if found is None:
        raise InputError(f"the tokenizer has no token {token!r}: this checkpoint was not made for ALToLLM")
    return int(found)


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id for the places after a sequence: the tokenizer's padding, else its end of text.

    Never the end of a turn, which answers are trained to say. Raises InputError where there is no other.
    """
    turn_end = token_id(tokenizer, TURN_END)
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if found is not None and found != turn_end:
            return int(found)
    raise InputError(f"the tokenizer has no padding token beside {TURN_END!r}: name one as its pad_token")


@dataclass(frozen=True, kw_only=True)
class MaskVocabulary:
    """Ids of the tokens masks are written with. codes[i] is the id of codebook entry i."""

    start: int
    end: int
    codes: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "MaskVocabulary":
        """Look the mask tokens up. Raises InputError where there are none, or a code is missing."""
        vocabulary = tokenizer.get_vocab()
        size = sum(token.startswith("<TOK_") for token in vocabulary)
        if not size:
            raise InputError("the tokenizer has no mask tokens (<TOK_0>, …): train it with altollm_sft first")
        return cls(
            start=_looked_up(vocabulary, MASK_START),
            end=_looked_up(vocabulary, MASK_END),
            codes=tuple(_looked_up(vocabulary, mask_token(code)) for code in range(size)),
        )

    @property
    def size(self) -> int:
        return len(self.codes)

    def encode(self, codes: Sequence[int]) -> list[int]:
        """Token ids of a mask, start and end included. Raises InputError for a code not in the codebook."""
        outside = [code for code in codes if not 0 <= code < self.size]
        if outside:
            raise InputError(f"mask code {outside[0]} is not in the model's codebook of {self.size} entries")
        return [self.start, *(self.codes[code] for code in codes), self.end]
