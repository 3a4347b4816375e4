"""Opening an acquired folder by the format its `dataset.json` names."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from data_contracts.errors import InputError
from jobs.formats.raw import RawDataset, load_json_file
from jobs.formats.selection import WHOLE, Selection

Open = Callable[[Path, Selection], RawDataset]


def open_dataset(folder: Path, formats: Mapping[str, Open], selection: Selection = WHOLE) -> RawDataset:
    """The data set; where dataset.json says `own_image_ids`, its ids are of no numbering of the format's.

    Raises InputError where dataset.json is missing or names none of these formats, where the format's
    own index cannot be read, and where the folder has not what is selected."""
    path = folder / "dataset.json"
    content = load_json_file(path)
    name = content.get("format") if isinstance(content, dict) else None
    if not isinstance(name, str) or name not in formats:
        raise InputError(f"{path}: format {name!r} is not one this stage reads ({', '.join(formats)})")
    dataset = formats[name](folder, selection)
    if content.get("own_image_ids") is True:
        return replace(dataset, images=(replace(image, image_numbering=None) for image in dataset.images))
    return dataset
