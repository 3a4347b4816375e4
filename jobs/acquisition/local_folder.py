"""Copies a data set from a local folder, keeping its publisher's layout."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from data_contracts.errors import InputError
from jobs.acquisition.settings import DATASET_FILE, Format
from jobs.runner.context import StageContext

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_SUFFIXES = IMAGE_SUFFIXES | {".json", ".jsonl", ".p"}
# Patterns a folder must have at least one file of.
_REQUIRED: dict[Format, tuple[str, ...]] = {
    "sa1b": ("sa_*.json", "sa_*.jpg"),
    "refer": ("refs(*).p", "instances.json"),
    "grefcoco": ("grefs(*).json", "instances.json"),
    "alto_jsonl": ("data_seg.json",),
    "coco_instances": ("instances.json",),
    "psalm": ("*/*_*.json",),
    "reason_seg": ("*/*.json", "*/*.jpg"),
    "refcocom": ("annotations/*.json", "masks/*.png"),
    "multi_class": ("*.jsonl",),
}


def existing_folder(folder: str) -> Path:
    """The folder, resolved. Raises InputError where there is none."""
    path = Path(folder).resolve()
    if not path.is_dir():
        raise InputError(f"folder `{folder}` does not exist; correct `folder` in params.yaml")
    return path


def copy_dataset(folder: Path, format_: Format, context: StageContext) -> dict[str, int]:
    """Copy images, masks and annotations into the stage's output; returns how many of each.

    Other files are left out. Raises InputError where what the format needs is missing, or where a link
    leads out of the folder.
    """
    for pattern in _REQUIRED[format_]:
        if not any(folder.glob(pattern)):
            raise InputError(f"folder `{folder.name}` has no `{pattern}`, which format `{format_}` needs")
    files = sorted(path for path in _files(folder) if path.suffix in _SUFFIXES and path.name != DATASET_FILE)
    images = sum(path.suffix in IMAGE_SUFFIXES for path in files)
    if images == 0:
        raise InputError(f"folder `{folder.name}` has no image (.jpg or .png) in it")
    with context.progress(len(files), "Copying", "file") as bar:
        for path in files:
            copy_file(folder, path, context.output / path.relative_to(folder))
            bar.update(1)
    return {"images": images, "annotation_files": len(files) - images}


def copy_file(folder: Path, path: Path, target: Path) -> None:
    """Copy one file's content. Raises InputError where links lead out of `folder`, or not to a file."""
    real = path.resolve()
    if not real.is_relative_to(folder):
        raise InputError(f"`{path.relative_to(folder)}` is a link that leads out of folder `{folder.name}`")
    if not real.is_file():
        raise InputError(f"`{path.relative_to(folder)}` in folder `{folder.name}` is not a regular file")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(real, target)


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise InputError(
                    f"`{Path(parent, name).relative_to(folder)}` is a linked folder; copy it in place"
                )
        yield from (Path(parent, name) for name in names)
