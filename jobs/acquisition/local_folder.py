"""Copies files from a local folder, keeping their layout."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from data_contracts.errors import InputError
from jobs.runner.context import StageContext


def existing_folder(folder: str) -> Path:
    """The folder, resolved. Raises InputError where there is none."""
    path = Path(folder).resolve()
    if not path.is_dir():
        raise InputError(f"folder `{folder}` does not exist; correct `folder` in params.yaml")
    return path


def copy_folder(
    folder: Path, target: Path, wanted: Callable[[PurePosixPath], bool], context: StageContext
) -> None:
    """Copy the wanted files. Raises InputError where a link leads out of the folder."""
    files = sorted(path for path in _files(folder) if wanted(PurePosixPath(path.relative_to(folder))))
    with context.progress(len(files), "Copying", "file") as bar:
        for path in files:
            copy_file(folder, path, target / path.relative_to(folder))
            bar.update(1)


def copy_file(folder: Path, path: Path, target: Path) -> None:
    """Copy one file's content. Raises InputError where links lead out of `folder`, or not to a file."""
    real = file_inside(folder, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(real, target)


def file_inside(folder: Path, path: Path) -> Path:
    """The file, resolved. Raises InputError where links lead out of `folder`, or not to a file."""
    real = path.resolve()
    if not real.is_relative_to(folder):
        raise InputError(f"`{path.relative_to(folder)}` is a link that leads out of folder `{folder.name}`")
    if not real.is_file():
        raise InputError(f"`{path.relative_to(folder)}` in folder `{folder.name}` is not a regular file")
    return real


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise InputError(
                    f"`{Path(parent, name).relative_to(folder)}` is a linked folder; copy it in place"
                )
        yield from (Path(parent, name) for name in names)
