"""Prepared shards on a disk or in a bucket, and what is said when one cannot be read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from data_contracts.errors import InputError, first_line

SHARDS = "shard-*.parquet"
BUCKET_PREFIX = "s3://"
ATTEMPTS = 5
CONNECT_SECONDS, REQUEST_SECONDS = 10, 60


class ShardFolder:
    """A partition of prepared data, or the folder above the partitions: a path or `s3://bucket/prefix`.

    Credentials and region of a bucket come from the environment and the AWS files, its endpoint from
    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL where it is not Amazon's. Can be sent to other processes.
    """

    def __init__(self, folder: Path | str) -> None:
        self.name = str(folder).rstrip("/")

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardFolder, (self.name,)

    @cached_property
    def _files(self) -> tuple[fs.FileSystem, str]:
        if not self.name.startswith(BUCKET_PREFIX):
            return fs.LocalFileSystem(), self.name
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        bucket = fs.S3FileSystem(
            endpoint_override=endpoint,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=REQUEST_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        )
        return bucket, self.name.removeprefix(BUCKET_PREFIX)

    def shards(self) -> list[str]:
        """Paths of the shards within the folder, in file order. Raises InputError where there are none."""
        return sorted(self._sizes(), key=lambda path: path.split("/"))

    def require_copy_of(self, other: "ShardFolder") -> None:
        """Raises InputError unless both hold shards of the same names and sizes."""
        here, there = self._sizes(), other._sizes()
        differing = sorted(path for path in here.keys() | there.keys() if here.get(path) != there.get(path))
        if differing:
            raise InputError(
                f"{self.name} is no copy of {other.name}: {len(differing)} shards differ, the first is {differing[0]}; "
                "copy it anew"
            )

    def _sizes(self) -> dict[str, int]:
        """Bytes of each shard, by its path within the folder. Raises InputError where there are none."""
        files, root = self._files
        with self._explained():
            found = files.get_file_info(fs.FileSelector(root, recursive=True))
        sizes = {
            info.path[len(root) :].lstrip("/"): info.size
            for info in found
            if info.type == fs.FileType.File and Path(info.path).match(SHARDS)
        }
        if not sizes:
            raise InputError(f"{self.name}: no {SHARDS} inside; run the prepare stage first")
        return sizes

    @contextmanager
    def open(self, shard: str) -> Iterator[pq.ParquetFile]:
        """A shard; raises InputError naming it for whatever goes wrong while it is read."""
        files, root = self._files
        with self._explained(shard), files.open_input_file(f"{root}/{shard}") as source:
            # One request for neighbouring columns of a row group; a damaged page is noticed where pages have sums.
            yield pq.ParquetFile(source, pre_buffer=True, page_checksum_verification=True)

    @contextmanager
    def _explained(self, shard: str | None = None) -> Iterator[None]:
        name = self.name if shard is None else f"{self.name}/{shard}"
        try:
            yield
        except FileNotFoundError:
            if shard is None:
                raise InputError(f"{name}: no such folder; run the prepare stage first") from None
            raise InputError(
                f"{name}: was there when reading began and is gone; put it back or run the prepare stage again"
            ) from None
        except (pa.ArrowException, OSError) as error:
            advice = "the shard is damaged or cannot be reached; run the prepare stage again or copy it anew"
            if shard is None and name.startswith(BUCKET_PREFIX):
                advice = "check bucket, credentials (environment or AWS files) and AWS_ENDPOINT_URL_S3"
            raise InputError(f"{name}: {first_line(error)}; {advice}") from None


def require_schema(file: pq.ParquetFile, schema: pa.Schema, name: str) -> None:
    """Raises InputError unless the file was written with this version of the schema."""
    stored = file.schema_arrow
    if _named(stored) != _named(schema) or not stored.equals(schema):
        raise InputError(
            f"{name}: holds {_named(stored)}, but {_named(schema)} is read here; run the prepare stage again"
        )


def _named(schema: pa.Schema) -> str:
    metadata = schema.metadata or {}
    name, version = (
        metadata.get(key, b"unknown").decode(errors="replace") for key in (b"schema", b"version")
    )
    return f"schema {name} of version {version}"
