"""Takes the images that annotations name from a folder that several data sets share, such as COCO's."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_contracts.errors import InputError
from jobs.acquisition.local_folder import copy_file, existing_folder
from jobs.acquisition.settings import Format
from jobs.formats.pope import QUESTIONS_PATTERN, image_names
from jobs.formats.raw import ProblemError, is_file, load_json_file, safe_path, text_of
from jobs.formats.vqav2 import image_names_of_questions
from jobs.runner.context import StageContext


def _of_index(content: Any) -> Iterable[Any]:
    images = content.get("images") if isinstance(content, dict) else None
    return images if isinstance(images, list) else []


def _of_list(content: Any) -> Iterable[Any]:
    return content if isinstance(content, list) else []


def _named(rows_of: Callable[[Any], Iterable[Any]], key: str) -> Callable[[Path], Iterable[str | None]]:
    """Names in one JSON file: its rows, and the key under which they name an image."""
    return lambda path: (text_of(row, key) for row in rows_of(load_json_file(path)))


# Files of annotations, and the names of images in one of them.
_NAMED_BY: dict[Format, tuple[str, Callable[[Path], Iterable[str | None]]]] = {
    "refer": ("instances.json", _named(_of_index, "file_name")),
    "grefcoco": ("instances.json", _named(_of_index, "file_name")),
    "coco_instances": ("instances.json", _named(_of_index, "file_name")),
    "psalm": ("*/*_*.json", _named(_of_list, "image")),
    "refcocom": ("annotations/*.json", _named(_of_list, "img_name")),
    "pope": (QUESTIONS_PATTERN, image_names),
    "vqav2": ("**/v2_OpenEnded_mscoco_*_questions.json", image_names_of_questions),
}


def copy_named_images(image_folder: str, format_: Format, context: StageContext) -> None:
    """Copy what the acquired annotations name to `images/` of the output.

    A name without a file, or one that leaves the folder, is left for prepare to judge. Raises InputError
    where the format's images are always its own, where the folder or an index cannot be read, and where a
    link leads out of the folder.
    """
    if format_ not in _NAMED_BY:
        raise InputError(f"`image_folder`: images of format `{format_}` lie in its own folder; drop it")
    pattern, names_in = _NAMED_BY[format_]
    folder, output = existing_folder(image_folder), context.output
    names = {name for path in sorted(output.glob(pattern)) for name in names_in(path) if name}
    with context.progress(len(names), "Copying", "image") as bar:
        for name in sorted(names):
            _copy(folder, name, output / "images")
            bar.update(1)


def _copy(folder: Path, name: str, target: Path) -> None:
    try:
        path = safe_path(folder, name)
    except ProblemError:
        return
    if is_file(path):
        copy_file(folder, path, safe_path(target, name))
