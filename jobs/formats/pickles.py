"""Pickles of plain data only: nothing in them can name a function or class, so nothing can be called."""

import codecs
import io
import pickle  # noqa: TID251
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from data_contracts.errors import InputError

# The instructions that build containers, strings and numbers. Those that name a class (the last) are let
# through to find_class, so that its refusal can say which; all others (calls, states, persistent ids) are not.
PLAIN_INSTRUCTIONS = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"),
    *("GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "BINBYTES8", "SHORT_BINBYTES"),
    *("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET"),
    *("GLOBAL", "STACK_GLOBAL", "INST"),
)
# Where on the stack each of these finds keys of a dictionary, or members of a set.
KEYS_ON_STACK = {
    "SETITEM": slice(-2, -1),
    "SETITEMS": slice(None, None, 2),
    "DICT": slice(None, None, 2),
    "ADDITEMS": slice(None),
    "FROZENSET": slice(None),
}
KEY_TYPES = (str, bytes, int, float, type(None))

Instruction = Callable[[Any], None]


def load_plain_pickle(path: Path) -> Any:
    """Containers, strings and numbers of a pickle. Raises InputError for anything else, running none of it.

    Byte strings of Python 2, which are of whatever encoding their author had, are read as UTF-8, and as
    cp1252 where they are not.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; the data set is incomplete") from None
    codecs.register_error("as_cp1252", _as_cp1252)
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="utf-8", errors="as_cp1252").load()
    except Exception as error:
        # The unpickler raises nearly anything (IndexError, KeyError, MemoryError…) for damaged bytes.
        reason = str(error)[:200] or type(error).__name__
        raise InputError(f"{path}: refused pickle ({reason})") from None


class _Instructions(dict[int, Instruction]):
    def __missing__(self, code: int) -> NoReturn:
        name = next((each.name for each in pickletools.opcodes if ord(each.code) == code), hex(code))
        raise pickle.UnpicklingError(f"instruction {name}; only plain data is read")


def _with_plain_keys(load: Instruction, keys: slice) -> Instruction:
    """Keys that are containers may take for ever to hash."""

    def checked(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            if not isinstance(key, KEY_TYPES):
                raise pickle.UnpicklingError(f"a key of type {type(key).__name__}; only plain data is read")
        load(unpickler)

    return checked


def _plain_instructions() -> _Instructions:
    instructions = _Instructions()
    for name in PLAIN_INSTRUCTIONS:
        code = getattr(pickle, name)[0]
        load = pickle._Unpickler.dispatch[code]
        instructions[code] = _with_plain_keys(load, KEYS_ON_STACK[name]) if name in KEYS_ON_STACK else load
    return instructions


class _PlainUnpickler(pickle._Unpickler):
    """The unpickler written in Python: the one written in C takes 32 GB where a memo is numbered 2**31."""

    dispatch = _plain_instructions()

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}; only plain data is read")


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end
