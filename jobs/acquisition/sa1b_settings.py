"""Where SA-1B shards come from over a network: the publisher's links, or a bucket."""

from pydantic import Field

from jobs.runner.context import JobConfig


class TransferConfig(JobConfig):
    """How hard to try. Kept small by default: publishers limit what one address may ask for."""

    parallel: int = Field(default=4, ge=1, le=64, description="connections at a time")
    attempts: int = Field(default=6, ge=1, description="tries without progress before giving up")
    timeout_seconds: float = Field(default=60, gt=0, description="longest silence of a server")


class LinksConfig(TransferConfig):
    """Shards by the publisher's list of links."""

    file: str = Field(
        description="tab-separated list with columns file_name and cdn_link, and size and md5 where known;"
        " relative to the project's root"
    )
    first_wait_seconds: float = Field(
        default=1, ge=0, description="wait after the second failure in a row; doubles, with jitter"
    )


class S3Config(TransferConfig):
    """Shards in a bucket. Credentials and endpoint come from the environment or the AWS files."""

    url: str = Field(
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$", description="s3://bucket/prefix/"
    )

    @property
    def bucket(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    def key(self, name: str) -> str:
        """Key of a shard below the prefix."""
        prefix = self.url.removeprefix("s3://").partition("/")[2].rstrip("/")
        return f"{prefix}/{name}" if prefix else name
