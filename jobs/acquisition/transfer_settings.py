"""Where data comes from: a folder, links, or a bucket."""

from typing import Generic, TypeVar

from pydantic import Field, field_validator, model_validator

from jobs.acquisition.link_list import is_web_address
from jobs.acquisition.safe_names import relative_path
from jobs.runner.context import JobConfig


class TransferConfig(JobConfig):
    """How hard to try. Kept small by default: publishers limit what one address may ask for."""

    parallel: int = Field(default=4, ge=1, le=64, description="connections at a time")
    attempts: int = Field(default=6, ge=1, description="tries without progress before giving up")
    timeout_seconds: float = Field(default=60, gt=0, description="longest silence of a server")


class LinksConfig(TransferConfig):
    """Downloads over HTTP."""

    first_wait_seconds: float = Field(
        default=1, ge=0, description="wait after the second failure in a row; doubles, with jitter"
    )


class ListedLinks(LinksConfig):
    """Files by a list of links that a publisher hands out."""

    file: str = Field(
        description="tab-separated list with columns file_name and cdn_link, and size and md5 where known;"
        " relative to the project's root"
    )


class LinkedFile(JobConfig):
    """One file to download, and what it is."""

    name: str = Field(description="by which messages and the list `signed` call it")
    url: str | None = Field(
        default=None, description="http(s) address without a query; null: the list `signed` holds the link"
    )
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the file, as published")
    size: int | None = Field(default=None, ge=0, description="bytes")
    put: str | None = Field(default=None, description="path of the file in the data set; null: its name")
    unpack: str | None = Field(
        default=None,
        description="folder of the data set that the archive (.zip, .tar, .tar.gz, …) is unpacked in",
    )
    strip_folders: int = Field(default=0, ge=0, description="folders left out at the front of members' names")
    only: tuple[str, ...] = Field(default=("*",), description="members to take; `*` stands for anything")

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if len(relative_path(name).parts) > 1:
            raise ValueError("a file name without folders expected")
        return name

    @field_validator("put")
    @classmethod
    def _path_inside(cls, path: str | None) -> str | None:
        return None if path is None else str(relative_path(path))

    @field_validator("unpack")
    @classmethod
    def _folder_inside(cls, path: str | None) -> str | None:
        return path if path in (None, ".") else str(relative_path(path))

    @field_validator("url")
    @classmethod
    def _public_address(cls, url: str | None) -> str | None:
        if url is not None and not is_web_address(url):
            raise ValueError("no http(s) address")
        # Parameters are recorded with every run, in dvc.lock and elsewhere.
        if url is not None and ("?" in url or "@" in url):
            raise ValueError(
                "an address with `?` or `@` may carry a signature or a password, and parameters are recorded;"
                " leave `url` out and put the link into the list that `signed` names"
            )
        return url

    @model_validator(mode="after")
    def _file_or_archive(self) -> "LinkedFile":
        if self.unpack is None and (self.strip_folders or self.only != ("*",)):
            raise ValueError("`strip_folders` and `only` are for archives: say where to `unpack` it")
        if self.unpack is not None and self.put is not None:
            raise ValueError("`put` is for a file and `unpack` for an archive: give one of them")
        return self


class DataLinks(LinksConfig):
    """A data set by links, each with its checksum."""

    files: tuple[LinkedFile, ...] = Field(min_length=1, description="what to download")
    signed: str | None = Field(
        default=None,
        description="tab-separated list (file_name, cdn_link) of the links that carry a signature",
    )
    max_unpacked_gigabytes: float = Field(default=200, gt=0, description="of all members of one archive")
    max_unpacked_files: int = Field(default=1_000_000, ge=1, description="members of one archive")

    @model_validator(mode="after")
    def _consistent(self) -> "DataLinks":
        names = [file.name for file in self.files]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"`files` has `{min(repeated)}` twice")
        unsigned = next((file.name for file in self.files if file.url is None), None)
        if unsigned is not None and self.signed is None:
            raise ValueError(f"`{unsigned}` has no `url`, and there is no list `signed`")
        return self


class S3Config(TransferConfig):
    """Objects in a bucket. Credentials and endpoint come from the environment or the AWS files."""

    url: str = Field(
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$", description="s3://bucket/prefix/"
    )

    @property
    def bucket(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    def key(self, name: str) -> str:
        """Key of an object below the prefix."""
        prefix = self.url.removeprefix("s3://").partition("/")[2].rstrip("/")
        return f"{prefix}/{name}" if prefix else name


AnyLinks = TypeVar("AnyLinks", bound=LinksConfig)


class Places(JobConfig, Generic[AnyLinks]):
    """Where something may be taken from; which of them are given is for the stage to check."""

    folder: str | None = Field(
        default=None, description="local folder in the publisher's layout; relative to the project's root"
    )
    links: AnyLinks | None = Field(default=None, description="addresses on the web")
    s3: S3Config | None = Field(default=None, description="a bucket")

    @property
    def given(self) -> list[str]:
        """Names of the places that are given."""
        return [name for name in ("folder", "links", "s3") if getattr(self, name) is not None]
