"""Objects from a bucket, by boto3's transfer: several at a time, and several parts of a large one."""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_contracts.errors import InputError
from jobs.acquisition.byte_progress import ByteProgress
from jobs.acquisition.link_list import listed
from jobs.acquisition.part_file import PartFile
from jobs.acquisition.safe_names import UnsafeName, relative_path, shown
from jobs.acquisition.transfer_settings import S3Config
from jobs.runner.context import StageContext

PART_BYTES = 16 << 20
_MD5 = re.compile(r"[0-9a-f]{32}")
_NO_SUCH_KEY = frozenset({"NoSuchKey", "404"})
_CHANGED = frozenset({"PreconditionFailed", "412", "InvalidRange", "416"})
_REFUSED = {
    "InvalidAccessKeyId": "does not know the access key",
    "SignatureDoesNotMatch": "does not accept the secret key",
    "ExpiredToken": "says the session token has expired",
    "InvalidToken": "does not accept the session token",
    "AccessDenied": "denies access",
    "403": "denies access",
}


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """name: below the prefix. size: bytes. etag: identifies the version, without quotes."""

    name: str
    size: int
    etag: str


def fetch_named_from_s3(config: S3Config, names: Sequence[str], folder: Path, context: StageContext) -> None:
    """Download the objects of these names that are not in `folder` yet.

    Credentials, region and endpoint (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL) come from where boto3 looks for
    them: the environment and the AWS files. Raises InputError naming what is missing, and what to do.
    """
    waiting = [name for name in names if not (folder / name).exists()]
    with _explained(config):
        client = _client(config)
        _download(client, config, _looked_up(client, config, waiting), folder, context)


def look_up_in_s3(config: S3Config, names: Sequence[str]) -> list[StoredObject]:
    """What the bucket holds under these names now. Raises InputError as `fetch_named_from_s3`."""
    with _explained(config):
        return _looked_up(_client(config), config, names)


def fetch_version_from_s3(config: S3Config, item: StoredObject, folder: Path, context: StageContext) -> None:
    """Download one object, of exactly this version. Raises InputError, also where the object is another by now."""
    with _explained(config):
        _download(_client(config), config, [item], folder, context)


def fetch_all_from_s3(
    config: S3Config, wanted: Callable[[PurePosixPath], bool], folder: Path, context: StageContext
) -> None:
    """Download every wanted object below the prefix that is not in `folder` yet; as `fetch_named_from_s3`."""
    with _explained(config):
        client = _client(config)
        found = [item for item in _listed(client, config) if wanted(PurePosixPath(item.name))]
        waiting = [item for item in found if not (folder / item.name).exists()]
        _download(client, config, waiting, folder, context)


def _download(
    client: Any, config: S3Config, objects: Sequence[StoredObject], folder: Path, context: StageContext
) -> None:
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    transfer = TransferConfig(
        max_concurrency=config.parallel,
        multipart_chunksize=PART_BYTES,
        multipart_threshold=PART_BYTES,
        num_download_attempts=config.attempts,
        preferred_transfer_client="classic",
    )
    with (
        context.progress(0, "Downloading", "B") as bar,
        create_transfer_manager(client, transfer) as manager,
    ):
        progress = ByteProgress(bar)
        progress.move(0, sum(item.size for item in objects))
        running: deque[tuple[StoredObject, PartFile, Any]] = deque()
        for item in objects:
            part = PartFile(folder / item.name)
            part.path.parent.mkdir(parents=True, exist_ok=True)
            for left_by_a_kill in part.path.parent.glob(f"{_literal(part.path.name)}*"):
                left_by_a_kill.unlink()
            # Of one version from the first part to the last: the transfer asks for its ETag.
            subscribers = [_Watched(item, progress)]
            future = manager.download(
                config.bucket, config.key(item.name), str(part.path), subscribers=subscribers
            )
            running.append((item, part, future))
            if len(running) > 2 * config.parallel:
                _finish(client, config, *running.popleft())
        while running:
            _finish(client, config, *running.popleft())


def _finish(client: Any, config: S3Config, item: StoredObject, part: PartFile, future: Any) -> None:
    future.result()
    if part.size != item.size or not _is_of_etag(client, config, item, part):
        part.discard()
        raise InputError(
            f"{shown(item.name)} is not what {config.url} says it holds (size or checksum); run again"
        )
    part.finish()


class _Watched:
    """Tells a transfer what the listing said, and the progress bar what has come."""

    def __init__(self, item: StoredObject, progress: ByteProgress) -> None:
        self._item = item
        self._progress = progress

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_transfer_size(self._item.size)
        future.meta.provide_object_etag(f'"{self._item.etag}"')

    def on_progress(self, bytes_transferred: int, **_: Any) -> None:
        self._progress.move(bytes_transferred, 0)

    def on_done(self, **_: Any) -> None:
        pass


def _is_of_etag(client: Any, config: S3Config, item: StoredObject, part: PartFile) -> bool:
    """Whether the bytes are those of the ETag, where it is made of MD5 sums, which not every store promises."""
    whole, _, parts = item.etag.partition("-")
    if not _MD5.fullmatch(whole):
        return True
    if not parts and part.digest("md5") == whole:
        return True
    head = client.head_object(
        Bucket=config.bucket, Key=config.key(item.name), **({"PartNumber": 1} if parts else {})
    )
    if head.get("ServerSideEncryption", "AES256") != "AES256":
        return True
    return bool(parts) and _digest_in_parts(part.path, head["ContentLength"], int(parts)) in (None, whole)


def _digest_in_parts(path: Path, part_bytes: int, parts: int) -> str | None:
    """MD5 of the MD5 sums of all parts; None where the file has another number of them."""
    digests = []
    with path.open("rb") as file:
        while data := file.read(part_bytes):
            digests.append(hashlib.md5(data, usedforsecurity=False).digest())
    if len(digests) != parts:
        return None
    return hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()


def _literal(name: str) -> str:
    """The name as a pattern that only it matches."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _client(config: S3Config) -> Any:
    import boto3.session
    from botocore.config import Config

    settings = Config(
        signature_version="s3v4",
        connect_timeout=config.timeout_seconds,
        read_timeout=config.timeout_seconds,
        max_pool_connections=config.parallel,
        retries={"mode": "standard", "total_max_attempts": config.attempts},
    )
    try:
        # A session of its own: the default one keeps the credentials it has seen first.
        return boto3.session.Session().client("s3", config=settings)
    except ValueError:
        raise InputError(
            "AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) is no address such as https://host:port; correct it"
        ) from None


def _looked_up(client: Any, config: S3Config, names: Sequence[str]) -> list[StoredObject]:
    """The objects of these names. Raises InputError naming all that the bucket lacks."""
    from botocore.exceptions import ClientError

    found, missing = [], []
    for name in names:
        try:
            # Unlike HEAD, GET says why it was refused.
            answer = client.get_object(Bucket=config.bucket, Key=config.key(name))
        except ClientError as error:
            if error.response["Error"]["Code"] not in _NO_SUCH_KEY:
                raise
            missing.append(name)
        else:
            answer["Body"].close()
            found.append(
                StoredObject(name=name, size=answer["ContentLength"], etag=answer["ETag"].strip('"'))
            )
    if missing:
        raise InputError(f"{config.url} has no {listed(missing)}; upload it or correct `s3.url`")
    return found


def _listed(client: Any, config: S3Config) -> list[StoredObject]:
    """All objects below the prefix, by name. Raises InputError where there is none, or a key is no path."""
    prefix = config.key("")
    found = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=config.bucket, Prefix=prefix):
        for entry in page.get("Contents", ()):
            name = entry["Key"].removeprefix(prefix)
            if not name or name.endswith("/"):
                continue
            try:
                path = relative_path(name)
            except UnsafeName as error:
                raise InputError(
                    f"{config.url}: key {shown(name)} is {error}; remove it or correct `s3.url`"
                ) from None
            if str(path) != name:
                raise InputError(
                    f"{config.url}: key {shown(name)} is no plain path; remove it or correct `s3.url`"
                )
            found.append(StoredObject(name=name, size=entry["Size"], etag=entry["ETag"].strip('"')))
    if not found:
        raise InputError(f"{config.url} holds no object; upload the data or correct `s3.url`")
    return found


@contextmanager
def _explained(config: S3Config) -> Iterator[None]:
    """Turn boto3's errors into one line, without anything that a server or the environment has put into them."""
    from boto3.exceptions import Boto3Error
    from botocore import exceptions
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound):
        raise InputError(
            f"no credentials for {config.url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        ) from None
    except exceptions.ClientError as error:
        code = str(error.response["Error"]["Code"])
        if code == "NoSuchBucket":
            raise InputError(f"bucket `{config.bucket}` does not exist; correct `s3.url`") from None
        if code in _REFUSED:
            raise InputError(
                f"the object store of {config.url} {_REFUSED[code]}; correct the AWS credentials"
            ) from None
        if code in _CHANGED or code in _NO_SUCH_KEY:
            raise InputError(f"objects of {config.url} changed while they were read; run again") from None
        raise InputError(
            f"the object store of {config.url} answered {code}; check AWS_REGION and `s3.url`"
        ) from None
    except (exceptions.BotoCoreError, Boto3Error, RetriesExceededError) as error:
        raise InputError(
            f"the object store of {config.url} cannot be read ({type(error).__name__});"
            " check AWS_ENDPOINT_URL_S3 and the network, then run again"
        ) from None
