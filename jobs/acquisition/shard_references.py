"""Shards that stay where they are: what identifies each, in a small file, in place of a second copy.

`acquire_sa1b` writes the file, `prepare_sa1b` reads the shards by it. What is read is what was recorded, or nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.errors import InputError
from jobs.acquisition.local_folder import existing_folder, file_inside
from jobs.acquisition.s3_source import StoredObject, fetch_version_from_s3, look_up_in_s3
from jobs.acquisition.transfer_settings import S3Config
from jobs.runner.context import StageContext

REFERENCES_FILE = "references.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileReference(_Frozen):
    """A shard in a folder. size: bytes."""

    name: str
    size: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ObjectReference(_Frozen):
    """A shard in a bucket. size: bytes. etag: of the version, without quotes; with most stores made of MD5 sums."""

    name: str
    size: int
    etag: str


class FolderReferences(_Frozen):
    """folder: as in params.yaml, relative to the project's root."""

    place: Literal["folder"] = "folder"
    folder: str
    shards: tuple[FileReference, ...]


class BucketReferences(_Frozen):
    """url: s3://bucket/prefix. Endpoint and credentials are the reader's."""

    place: Literal["s3"] = "s3"
    url: str
    shards: tuple[ObjectReference, ...]


class References(_Frozen):
    """Content of `references.json`."""

    source: Annotated[FolderReferences | BucketReferences, Field(discriminator="place")]

    @property
    def names(self) -> list[str]:
        return [shard.name for shard in self.source.shards]

    @property
    def bytes(self) -> int:
        return sum(shard.size for shard in self.source.shards)

    def write(self, folder: Path) -> None:
        (folder / REFERENCES_FILE).write_text(self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "References":
        """Raises InputError where the file is missing or damaged."""
        path = folder / REFERENCES_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            raise InputError(f"{path}: missing or damaged; run acquire_sa1b again") from None


def refer_to_folder(folder: str, names: Sequence[str], context: StageContext) -> References:
    """Read each shard once for its checksum. Raises InputError where one is missing."""
    root = existing_folder(folder)
    shards = []
    with context.progress(len(names), "Checksums", "shard") as bar:
        for name in names:
            path = file_inside(root, root / name)
            shards.append(FileReference(name=name, size=path.stat().st_size, sha256=_sha256(path)))
            bar.update(1)
    return References(source=FolderReferences(folder=folder, shards=tuple(shards)))


def refer_to_bucket(config: S3Config, names: Sequence[str]) -> References:
    """Raises InputError where the bucket lacks one, and for everything else that keeps it from being read."""
    found = look_up_in_s3(config, names)
    shards = tuple(ObjectReference(name=item.name, size=item.size, etag=item.etag) for item in found)
    return References(source=BucketReferences(url=config.url, shards=shards))


@contextmanager
def folder_with(references: References, name: str, scratch: Path, context: StageContext) -> Iterator[Path]:
    """A folder that holds this shard, byte for byte as it was recorded, under its name.

    From a bucket it is downloaded below `scratch` and removed at the end, so that one shard at a time is on the disk.
    Raises InputError where it is not (any more) what was recorded.
    """
    folder = scratch / name
    folder.mkdir(parents=True, exist_ok=True)
    path, source = folder / name, references.source
    try:
        if isinstance(source, FolderReferences):
            _link_checked(source, name, path)
        else:
            _fetch_checked(source, name, path, context)
        yield folder
    finally:
        path.unlink(missing_ok=True)


def _link_checked(source: FolderReferences, name: str, path: Path) -> None:
    (recorded,) = (shard for shard in source.shards if shard.name == name)
    root = existing_folder(source.folder)
    original = file_inside(root, root / name)
    if original.stat().st_size != recorded.size or _sha256(original) != recorded.sha256:
        raise InputError(
            f"`{name}` in folder `{root.name}` is not what acquire_sa1b recorded; put it back or run that stage again"
        )
    path.unlink(missing_ok=True)
    path.symlink_to(original)


def _fetch_checked(source: BucketReferences, name: str, path: Path, context: StageContext) -> None:
    (recorded,) = (shard for shard in source.shards if shard.name == name)
    if path.exists():
        return
    item = StoredObject(name=recorded.name, size=recorded.size, etag=recorded.etag)
    config = S3Config(url=source.url)
    (now,) = look_up_in_s3(config, [name])
    if now != item:
        raise InputError(
            f"`{name}` in {source.url} is not what acquire_sa1b recorded; put it back or run that stage again"
        )
    fetch_version_from_s3(config, item, path.parent, context)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
