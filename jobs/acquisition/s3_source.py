"""Shards from a bucket, by boto3's transfer: several parts of one shard at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_contracts.errors import InputError
from jobs.acquisition.byte_progress import ByteProgress
from jobs.acquisition.link_list import listed
from jobs.acquisition.part_file import PartFile
from jobs.acquisition.sa1b_settings import S3Config
from jobs.runner.context import StageContext

PART_BYTES = 16 << 20
_NO_SUCH_KEY = frozenset({"NoSuchKey", "404"})
_REFUSED = {
    "InvalidAccessKeyId": "does not know the access key",
    "SignatureDoesNotMatch": "does not accept the secret key",
    "ExpiredToken": "says the session token has expired",
    "InvalidToken": "does not accept the session token",
    "AccessDenied": "denies access",
    "403": "denies access",
}


def fetch_from_s3(config: S3Config, shards: Sequence[str], folder: Path, context: StageContext) -> None:
    """Download the shards that are not in `folder` yet.

    Credentials, region and endpoint (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL) come from where boto3 looks for
    them: the environment and the AWS files. Raises InputError naming what is missing, and what to do.
    """
    from boto3.s3.transfer import TransferConfig

    transfer = TransferConfig(
        max_concurrency=config.parallel,
        multipart_chunksize=PART_BYTES,
        multipart_threshold=PART_BYTES,
        num_download_attempts=config.attempts,
        preferred_transfer_client="classic",
    )
    waiting = [shard for shard in shards if not (folder / shard).exists()]
    with _explained(config):
        client = _client(config)
        sizes = _sizes(client, config, waiting)
        with context.progress(0, "Downloading", "B") as bar:
            progress = ByteProgress(bar)
            progress.move(0, sum(sizes.values()))
            for shard, size in sizes.items():
                part = PartFile(folder / shard)
                for left_by_a_kill in folder.glob(f"{part.path.name}*"):
                    left_by_a_kill.unlink()
                client.download_file(
                    config.bucket,
                    config.key(shard),
                    str(part.path),
                    Config=transfer,
                    Callback=lambda count: progress.move(count, 0),
                )
                if part.size != size:
                    raise InputError(f"`{shard}` changed in {config.url} while it was read; run again")
                part.finish()


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


def _sizes(client: Any, config: S3Config, shards: Sequence[str]) -> dict[str, int]:
    """Bytes of each shard. Raises InputError naming all that the bucket lacks."""
    from botocore.exceptions import ClientError

    sizes, missing = {}, []
    for shard in shards:
        try:
            # Unlike HEAD, GET says why it was refused.
            answer = client.get_object(Bucket=config.bucket, Key=config.key(shard))
        except ClientError as error:
            if error.response["Error"]["Code"] not in _NO_SUCH_KEY:
                raise
            missing.append(shard)
        else:
            answer["Body"].close()
            sizes[shard] = answer["ContentLength"]
    if missing:
        raise InputError(f"{config.url} has no {listed(missing)}; upload it or correct `s3.url`")
    return sizes


@contextmanager
def _explained(config: S3Config) -> Iterator[None]:
    """Turn boto3's errors into one line, without anything that a server or the environment has put into them."""
    from boto3.exceptions import Boto3Error
    from botocore import exceptions

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
        raise InputError(
            f"the object store of {config.url} answered {code}; check AWS_REGION and `s3.url`"
        ) from None
    except (exceptions.BotoCoreError, Boto3Error) as error:
        raise InputError(
            f"the object store of {config.url} cannot be read ({type(error).__name__});"
            " check AWS_ENDPOINT_URL_S3 and the network, then run again"
        ) from None
