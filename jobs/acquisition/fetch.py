"""Brings the files of a data set or a checkpoint in from a folder, links or a bucket, keeping their layout."""

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from data_contracts.errors import InputError
from jobs.acquisition.archives import Choice, Limits, unpack
from jobs.acquisition.link_source import fetch_from_links, links_of, renewal_in
from jobs.acquisition.local_folder import copy_folder, existing_folder
from jobs.acquisition.s3_source import fetch_all_from_s3
from jobs.acquisition.safe_names import shown
from jobs.acquisition.transfer_settings import DataLinks, Places, S3Config
from jobs.runner.context import StageContext

Wanted = Callable[[PurePosixPath], bool]


def fetch(
    places: Places[DataLinks], target: Path, wanted: Wanted, downloads: Path, context: StageContext
) -> None:
    """Put the wanted files of the one place that is given below `target`.

    downloads: folder below `context.work` that keeps what has come until all of it is there, so that a run that is
    killed goes on.
    Raises InputError naming what is missing or wrong, and what to do.
    """
    if places.folder is not None:
        copy_folder(existing_folder(places.folder), target, wanted, context)
    if places.links is not None:
        downloads.mkdir(parents=True, exist_ok=True)
        _fetch_links(places.links, downloads, target, wanted, context)
    if places.s3 is not None:
        downloads.mkdir(parents=True, exist_ok=True)
        _fetch_objects(places.s3, downloads, target, wanted, context)


def _fetch_objects(
    s3: S3Config, downloads: Path, target: Path, wanted: Wanted, context: StageContext
) -> None:
    fetch_all_from_s3(s3, wanted, downloads, context)
    for path in sorted(path for path in downloads.rglob("*") if path.is_file()):
        _move(path, target / path.relative_to(downloads))


def _fetch_links(
    links: DataLinks, downloads: Path, target: Path, wanted: Wanted, context: StageContext
) -> None:
    renewal = "correct the links in params.yaml" if links.signed is None else renewal_in(links.signed)
    fetch_from_links(links, links_of(links), downloads, renewal, context)
    limits = Limits(bytes=int(links.max_unpacked_gigabytes * 1e9), files=links.max_unpacked_files)
    with context.progress(0, "Unpacking", "file") as bar:
        for file in links.files:
            path = downloads / file.name
            if file.unpack is None:
                _move(path, target / (file.put or file.name))
            else:
                choice = Choice(only=file.only, strip_folders=file.strip_folders, wanted=wanted)
                if not unpack(path, target / file.unpack, choice, limits, bar):
                    raise InputError(
                        f"archive `{file.name}`: no member is taken; correct `only` or `strip_folders`"
                    )
    shutil.rmtree(downloads)


def _move(path: Path, target: Path) -> None:
    if target.exists():
        raise InputError(f"{shown(path.name)} would replace another file of this name; change `put`")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)
