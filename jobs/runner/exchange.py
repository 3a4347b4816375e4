"""A folder or a bucket that both the submitting machine and the node of a job reach.

What passes between the two, for jobs that share no work tree, passes through here: the order, log lines, checkpoints
and the result. Outputs do not: they go through DVC's remote.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from data_contracts.errors import InputError, first_line

BUCKET_PREFIX = "s3://"
SECONDS_TO_CONNECT, SECONDS_TO_ANSWER = 10, 60
SECONDS_UNREACHABLE = 600.0  # that a job, and who waits for its result, let a store be away
OBJECTS_PER_DELETION = 1000  # the limit of S3's DeleteObjects
REFUSALS = {
    "InvalidAccessKeyId": "it does not know the access key",
    "SignatureDoesNotMatch": "it does not accept the secret key",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "it does not accept the session token",
    "AccessDenied": "it denies access",
    "403": "it denies access",
    "NoSuchBucket": "there is no such bucket",
}
MISSING = frozenset({"NoSuchKey", "404"})

ResultT = TypeVar("ResultT")


class Unreachable(Exception):
    """The place does not answer now; it may later."""


class StoredObject(NamedTuple):
    """size: in bytes. changed: seconds since the epoch."""

    name: str
    size: int
    changed: float


class Exchange(Protocol):
    """Objects by name (`a/b.json`), each there as a whole or not at all.

    Every method raises Unreachable where the place does not answer, and InputError where it refuses.
    """

    @property
    def url(self) -> str: ...
    def below(self, name: str) -> "Exchange": ...
    def write(self, name: str, content: bytes) -> None: ...
    def read(self, name: str) -> bytes | None:
        """None where there is no such object."""

    def upload(self, path: Path, name: str) -> None: ...
    def download(self, name: str, path: Path) -> None:
        """Raises InputError where there is no such object."""

    def names(self, folder: str = "", after: str = "") -> list[str]:
        """Of everything below a folder, sorted; only those behind `after`."""

    def stored(self, folder: str = "", after: str = "") -> list[StoredObject]:
        """What `names` names."""

    def delete(self, names: Sequence[str]) -> None: ...


def open_exchange(url: str) -> Exchange:
    """`s3://bucket/prefix`, or an absolute path. Raises InputError for anything else."""
    if url.startswith(BUCKET_PREFIX):
        bucket, _, prefix = url.removeprefix(BUCKET_PREFIX).strip("/").partition("/")
        if bucket:
            return BucketExchange(bucket, prefix)
    elif os.path.isabs(url):
        return FolderExchange(Path(url))
    raise InputError(f"{url!r} is no exchange: give s3://BUCKET/PREFIX or the absolute path of a folder")


def until_reachable(seconds: float, action: Callable[[], ResultT]) -> ResultT:
    """Repeat the action while the place is unreachable, for at most so long. Raises Unreachable after that."""
    end = time.monotonic() + seconds
    pause = 0.2
    while True:
        try:
            return action()
        except Unreachable:
            if time.monotonic() + pause > end:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


class FolderExchange:
    """On a file system that both machines mount, and that need not have working locks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        return str(self._folder)

    def below(self, name: str) -> "FolderExchange":
        return FolderExchange(self._folder / name)

    def write(self, name: str, content: bytes) -> None:
        with self._explained(), self._replacing(name) as partial:
            partial.write_bytes(content)

    def read(self, name: str) -> bytes | None:
        with self._explained():
            try:
                return (self._folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def upload(self, path: Path, name: str) -> None:
        with self._explained(), self._replacing(name) as partial:
            shutil.copyfile(path, partial)

    def download(self, name: str, path: Path) -> None:
        with self._explained():
            try:
                shutil.copyfile(self._folder / name, path)
            except FileNotFoundError:
                raise InputError(f"{self.url}/{name} is missing") from None

    def names(self, folder: str = "", after: str = "") -> list[str]:
        return [stored.name for stored in self.stored(folder, after)]

    def stored(self, folder: str = "", after: str = "") -> list[StoredObject]:
        found = []
        with self._explained():
            for path in (self._folder / folder).rglob("*"):
                name = path.relative_to(self._folder).as_posix()
                if name > after and not path.name.startswith(".") and path.is_file():
                    with suppress(FileNotFoundError):  # deleted under our eyes
                        status = path.stat()
                        found.append(StoredObject(name, status.st_size, status.st_mtime))
        return sorted(found)

    def delete(self, names: Sequence[str]) -> None:
        with self._explained():
            for name in names:
                (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        yield partial
        os.replace(partial, target)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise InputError(f"exchange {self.url}: {error.strerror}: {error.filename}") from None
        except OSError as error:
            raise Unreachable(f"exchange {self.url}: {first_line(error)}") from error


class BucketExchange:
    """In an S3 store. Credentials, region and endpoint come from where boto3 looks: the AWS files and the environment
    (AWS_ENDPOINT_URL_S3 for a store that is not Amazon's)."""

    def __init__(self, bucket: str, prefix: str, client: Any = None) -> None:
        self._bucket, self._prefix = bucket, prefix
        self._known_client = client

    @property
    def url(self) -> str:
        return f"{BUCKET_PREFIX}{self._bucket}/{self._prefix}".rstrip("/")

    def below(self, name: str) -> "BucketExchange":
        return BucketExchange(self._bucket, self._key(name), self._client())

    def write(self, name: str, content: bytes) -> None:
        with self._explained():
            self._client().put_object(Bucket=self._bucket, Key=self._key(name), Body=content)

    def read(self, name: str) -> bytes | None:
        from botocore.exceptions import ClientError

        with self._explained():
            try:
                answer = self._client().get_object(Bucket=self._bucket, Key=self._key(name))
                content: bytes = answer["Body"].read()
            except ClientError as error:
                if error_code(error) in MISSING:
                    return None
                raise
        return content

    def upload(self, path: Path, name: str) -> None:
        with self._explained():
            self._client().upload_file(str(path), self._bucket, self._key(name))

    def download(self, name: str, path: Path) -> None:
        with self._explained(name):
            self._client().download_file(self._bucket, self._key(name), str(path))

    def names(self, folder: str = "", after: str = "") -> list[str]:
        return [stored.name for stored in self.stored(folder, after)]

    def stored(self, folder: str = "", after: str = "") -> list[StoredObject]:
        start = len(self._key(""))
        pages = self._client().get_paginator("list_objects_v2")
        below = {"Prefix": self._key(f"{folder}/" if folder else "")}
        behind = {"StartAfter": self._key(after)} if after else {}
        with self._explained():
            found = [
                StoredObject(item["Key"][start:], item["Size"], item["LastModified"].timestamp())
                for page in pages.paginate(Bucket=self._bucket, **below, **behind)
                for item in page.get("Contents", [])
            ]
        return sorted(found)

    def delete(self, names: Sequence[str]) -> None:
        with self._explained():
            for start in range(0, len(names), OBJECTS_PER_DELETION):
                keys = [{"Key": self._key(name)} for name in names[start : start + OBJECTS_PER_DELETION]]
                self._client().delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _client(self) -> Any:
        if self._known_client is None:
            import boto3
            from botocore.config import Config

            settings = Config(
                connect_timeout=SECONDS_TO_CONNECT,
                read_timeout=SECONDS_TO_ANSWER,
                retries={"mode": "standard", "max_attempts": 3},
            )
            with self._explained():
                self._known_client = boto3.session.Session().client("s3", config=settings)
        return self._known_client

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

        try:
            yield
        except ClientError as error:
            code = error_code(error)
            if code in MISSING:
                raise InputError(f"exchange {self.url}: {name} is missing") from None
            if (
                error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
                or code == "SlowDown"
            ):
                raise Unreachable(f"exchange {self.url}: {first_line(error)}") from error
            advice = "check bucket and credentials (environment or AWS files)"
            raise InputError(f"exchange {self.url}: {REFUSALS.get(code, code)}; {advice}") from None
        except (HTTPClientError, ConnectionError, Boto3Error) as error:
            raise Unreachable(f"exchange {self.url}: {first_line(error)}") from error
        except BotoCoreError as error:
            raise InputError(
                f"exchange {self.url}: {first_line(error)}; set credentials in the environment or the AWS files"
            ) from None


def error_code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
