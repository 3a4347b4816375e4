"""Folders that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from data_contracts.errors import InputError


def require_new(out: Path) -> None:
    """Raises InputError where `out` is there already, whatever it is."""
    if os.path.lexists(out):
        raise InputError(f"{out}: exists already; give --out a new folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """An empty folder that becomes `out` when the context ends well, and goes with all beside it otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        folder = Path(work, "output")
        folder.mkdir()
        yield folder
        os.replace(folder, out)
