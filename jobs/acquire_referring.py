"""Acquire one training set of referring expressions, in its publisher's format.

Its folder then holds `dataset.json` (the format's name) beside
- `refer`: `refs(unc).p`, `instances.json`, `images/`;
- `grefcoco`: `grefs(unc).json`, `instances.json`, `images/`;
- `alto_jsonl`: `data_seg.json`, `anns/`, `images/`, `masks/`;
- `coco_instances`: `instances.json`, `images/`;
- `psalm`: `NAME/NAME_SPLIT.json`, `images/`;
- `reason_seg`: `SPLIT/NAME.json` beside `SPLIT/NAME.jpg`, `explanatory/train.json`;
- `refcocom`: `annotations/SPLIT.json`, `masks/`, `images/`;
- `multi_class`: `ade.jsonl` (or another), images and masks where it says.
"""

from pydantic import Field, field_validator

from jobs.acquisition.referring import acquire
from jobs.acquisition.settings import VQA_FORMATS, DatasetConfig
from jobs.runner.context import JobConfig, StageContext, StageReport


class Config(JobConfig):
    datasets: dict[str, DatasetConfig] = Field(description="settings of each data set, by partition key")

    @field_validator("datasets")
    @classmethod
    def _with_masks(cls, datasets: dict[str, DatasetConfig]) -> dict[str, DatasetConfig]:
        for name, settings in datasets.items():
            if settings.format in VQA_FORMATS:
                raise ValueError(
                    f"`{name}`: format `{settings.format}` has no masks; it is for a benchmark only"
                )
        return datasets


def run(config: Config, context: StageContext) -> StageReport:
    """Draw or copy the data set of the partition."""
    return acquire(config.datasets, "referring", "acquire_referring.datasets", context)


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("acquire_referring")
