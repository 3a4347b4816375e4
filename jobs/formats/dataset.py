"""Opening an acquired folder by the format its `dataset.json` names."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from data_contracts.errors import InputError
from jobs.formats.raw import Fields, ProblemError, RawDataset, Text, load_json_file, parse_fields
from jobs.formats.selection import WHOLE, Selection

DATASET_FILE = "dataset.json"
Open = Callable[[Path, Selection], RawDataset]


class DatasetFile(Fields):
    format: Text
    own_image_ids: bool = False


def open_dataset(folder: Path, formats: Mapping[str, Open], selection: Selection = WHOLE) -> RawDataset:
    """The data set; where dataset.json says `own_image_ids`, its ids are of no numbering of the format's.

    Raises InputError where dataset.json is missing or names none of these formats, where the format's
    own index cannot be read, and where the folder has not what is selected."""
    content = _content(folder)
    if content.format not in formats:
        known = ", ".join(formats)
        raise InputError(
            f"{folder / DATASET_FILE}: format {content.format!r} is not one this stage reads ({known})"
        )
    dataset = formats[content.format](folder, selection)
    if content.own_image_ids:
        return replace(dataset, images=(replace(image, image_numbering=None) for image in dataset.images))
    return dataset


def format_of(folder: Path) -> str:
    """The format that dataset.json names. Raises InputError where it is missing or names none."""
    return _content(folder).format


def _content(folder: Path) -> DatasetFile:
    path = folder / DATASET_FILE
    try:
        return parse_fields(DatasetFile, load_json_file(path))
    except ProblemError as error:
        raise InputError(f"{path}: {error}; acquire the data set again") from None
