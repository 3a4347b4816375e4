"""The layout of a data set by its format: which files belong to it, and which it cannot do without."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from data_contracts.errors import InputError
from jobs.acquisition.settings import DATASET_FILE, Format

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_SUFFIXES = IMAGE_SUFFIXES | {".json", ".jsonl", ".p"}
_SUFFIXES_OF: dict[Format, frozenset[str]] = {"mme": _SUFFIXES | {".txt"}}
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
    "pope": ("**/*pope_*.json",),
    "vqav2": ("**/v2_OpenEnded_mscoco_*_questions.json", "**/v2_mscoco_*_annotations.json"),
    "mme": ("**/*.txt",),
}


def wanted_by(format_: Format) -> Callable[[PurePosixPath], bool]:
    """Says of a file whether it is an image, a mask or annotations of the format; others are left out, as is
    what macOS puts beside each file of an archive."""
    suffixes = _SUFFIXES_OF.get(format_, _SUFFIXES)

    def wanted(path: PurePosixPath) -> bool:
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        return path.suffix.lower() in suffixes and path.name != DATASET_FILE and not hidden

    return wanted


def require_layout(folder: Path, format_: Format, name: str) -> None:
    """Raises InputError where what the format needs is missing. name: of the folder, for people."""
    for pattern in _REQUIRED[format_]:
        if not any(folder.glob(pattern)):
            raise InputError(f"{name} has no `{pattern}`, which format `{format_}` needs")


def count_files(folder: Path, format_: Format) -> dict[str, int]:
    """How many images and other files the data set has. Raises InputError where it has no image."""
    wanted = wanted_by(format_)
    suffixes = [path.suffix.lower() for path in folder.rglob("*") if wanted(PurePosixPath(path.name))]
    images = sum(suffix in IMAGE_SUFFIXES for suffix in suffixes)
    if images == 0:
        raise InputError("the data set has no image (.jpg or .png) in it")
    return {"images": images, "annotation_files": len(suffixes) - images}
