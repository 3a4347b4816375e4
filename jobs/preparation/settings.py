"""Parameters the prepare stages share."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from data_contracts.errors import InputError
from jobs.formats.selection import Selection
from jobs.runner.context import JobConfig


class ContractConfig(JobConfig):
    """When a data set is refused as a whole, and when an image is."""

    max_quarantined_share: float = Field(
        default=0.02, ge=0, le=1, description="of the rows read; more of them stop what follows"
    )
    max_warned_share: float = Field(
        default=0.2, ge=0, le=1, description="of the accepted rows that one rule may only warn of"
    )
    max_image_pixels: int = Field(default=50_000_000, ge=1, description="larger images are quarantined")


class ImagesConfig(JobConfig):
    """How images are stored. Masks are always stored at the size of their stored image."""

    encoding: Literal["original", "jpeg", "webp", "png"] = Field(
        default="original",
        description="original: the published file, byte for byte; else all are encoded anew",
    )
    max_side: int | None = Field(
        default=None, ge=16, description="longer sides are shrunk to this; null: never; not with original"
    )
    quality: int = Field(default=90, ge=1, le=100, description="of jpeg and webp")

    @model_validator(mode="after")
    def _original_keeps_its_size(self) -> Self:
        if self.encoding == "original" and self.max_side is not None:
            raise ValueError(
                "`max_side` needs another `encoding` than original, which keeps files as they are"
            )
        return self


PUBLISHED_FILES = ImagesConfig()


class DatasetConfig(JobConfig):
    """Settings of one data set of referring expressions."""

    held_out_share: float = Field(
        default=0.0, ge=0, lt=1, description="of the images without a split of the publisher's"
    )
    splits: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="the publisher's splits that are read; null for all"
    )
    annotations: str | None = Field(
        default=None, description="file (psalm: folder) to read, where the data set holds more than one"
    )

    @property
    def selection(self) -> Selection:
        return Selection(annotations=self.annotations, splits=self.splits)


def settings_of(datasets: Mapping[str, DatasetConfig], section: str, partition: str | None) -> DatasetConfig:
    """Settings of a partition. Raises InputError where params.yaml has none."""
    if partition is None or partition not in datasets:
        raise InputError(
            f"params.yaml: {section} has no settings for `{partition}`; add them or drop the partition"
        )
    return datasets[partition]
