"""Pickles of plain data only: nothing in them can name a function or class, so nothing can be called."""

import io
import pickle  # noqa: TID251
from pathlib import Path
from typing import Any, NoReturn

from data_contracts.errors import InputError


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}; only plain data is read")


def load_plain_pickle(path: Path) -> Any:
    """Containers, strings and numbers of a pickle. Raises InputError for anything else, running none of it.

    Pickles of Python 2 hold byte strings: UTF-8, else Latin-1.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; the data set is incomplete") from None
    try:
        return _load(data, "utf-8")
    except UnicodeDecodeError:
        return _load_or_refuse(data, "latin-1", path)
    except Exception as error:
        raise _refusal(path, error) from None


def _load_or_refuse(data: bytes, encoding: str, path: Path) -> Any:
    try:
        return _load(data, encoding)
    except Exception as error:
        raise _refusal(path, error) from None


def _load(data: bytes, encoding: str) -> Any:
    return _PlainUnpickler(io.BytesIO(data), encoding=encoding).load()


def _refusal(path: Path, error: Exception) -> InputError:
    # The unpickler raises nearly anything (IndexError, KeyError, MemoryError…) for damaged bytes.
    return InputError(f"{path}: refused pickle ({str(error)[:200] or type(error).__name__})")
