"""Opening an acquired folder by the format its `dataset.json` names."""

from collections.abc import Callable
from pathlib import Path

from data_contracts.errors import InputError
from jobs.formats.alto_jsonl import open_alto_jsonl
from jobs.formats.coco import open_coco_instances
from jobs.formats.raw import RawDataset, load_json_file
from jobs.formats.refer import open_grefcoco, open_refer
from jobs.formats.sa1b import open_sa1b

FORMATS: dict[str, Callable[[Path], RawDataset]] = {
    "sa1b": open_sa1b,
    "refer": open_refer,
    "grefcoco": open_grefcoco,
    "alto_jsonl": open_alto_jsonl,
    "coco_instances": open_coco_instances,
}


def format_of(folder: Path) -> str:
    """Raises InputError where dataset.json is missing or names no known format."""
    path = folder / "dataset.json"
    content = load_json_file(path)
    name = content.get("format") if isinstance(content, dict) else None
    if not isinstance(name, str) or name not in FORMATS:
        raise InputError(f"{path}: format {name!r} is not one of {', '.join(FORMATS)}")
    return name


def open_dataset(folder: Path) -> RawDataset:
    """Raises InputError as format_of, and where the format's index file cannot be read."""
    return FORMATS[format_of(folder)](folder)
