"""Parameters the prepare stages share."""

from collections.abc import Mapping

from pydantic import Field

from data_contracts.errors import InputError
from jobs.formats.selection import Selection
from jobs.runner.context import JobConfig


class ContractConfig(JobConfig):
    """When a data set is refused as a whole, and when an image is."""

    max_quarantined_share: float = Field(
        default=0.02, ge=0, le=1, description="of the rows read; more of them stop what follows"
    )
    max_image_pixels: int = Field(default=50_000_000, ge=1, description="larger images are quarantined")


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
