"""Parameters shared by the stages that acquire data, and the file that tells what was acquired."""

import json
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from jobs.acquisition.transfer_settings import AnyLinks, DataLinks, Places
from jobs.runner.context import JobConfig
from jobs.sample_scenes.scene import SceneConfig

ReferringFormat = Literal[
    "refer",
    "grefcoco",
    "alto_jsonl",
    "coco_instances",
    "psalm",
    "reason_seg",
    "refcocom",
    "multi_class",
]
VqaFormat = Literal["pope", "vqav2", "mme"]
Format = Literal["sa1b", "sa1b_references"] | ReferringFormat | VqaFormat
VQA_FORMATS: tuple[str, ...] = get_args(VqaFormat)
# Formats that scenes can be drawn in.
SAMPLED = ("refer", "grefcoco", "alto_jsonl")
DATASET_FILE = "dataset.json"


class SourceConfig(Places[AnyLinks]):
    """Where data comes from."""

    source: Literal["sample", "folder", "links", "s3"] = Field(
        default="sample",
        description="`sample`: scenes drawn from the seed; the others take what the section of this name says",
    )
    scene: SceneConfig = Field(default=SceneConfig(), description="size of the drawn scenes")

    @model_validator(mode="after")
    def _section_of_the_source(self) -> Self:
        expected = [] if self.source == "sample" else [self.source]
        for name in {*self.given} ^ {*expected}:
            raise ValueError(
                f"`{name}` must be given with `source: {name}`, and only then; source is {self.source}"
            )
        return self


class ExpressionCounts(JobConfig):
    """How many expressions of each sort a scene gets, where it has as many."""

    per_object: int = Field(default=2, ge=0, description="of each object alone")
    multiple: int = Field(default=0, ge=0, description="of several objects")
    no_target: int = Field(default=0, ge=0, description="of something that is not there")


class DatasetConfig(SourceConfig[DataLinks]):
    """A data set of images with referring expressions or, for a benchmark, with questions."""

    format: ReferringFormat | VqaFormat = Field(
        description=f"the publisher's layout; scenes are drawn as {', '.join(SAMPLED)} only"
    )
    image_folder: str | None = Field(
        default=None,
        description="folder of the images, where they are not with the annotations; those named are taken",
    )
    version: str | None = Field(
        default=None,
        description="of what lies at the source: another one acquires it again (sensor `new_referring_versions`)",
    )
    images: int = Field(default=100, ge=1, description="scenes to draw")
    splits: dict[str, float] = Field(
        default={"train": 1.0}, description="share of the images of each split; the shares add up to 1"
    )
    own_image_ids: bool = Field(
        default=False,
        description="image ids are the data set's own, though its format's are COCO's; true of all samples",
    )
    expressions: ExpressionCounts = Field(default=ExpressionCounts(), description="expressions of a scene")

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetConfig":
        if self.source == "sample" and self.format not in SAMPLED:
            raise ValueError(f"format `{self.format}` is not drawn as samples: take it from another source")
        if self.source == "sample" and self.image_folder is not None:
            raise ValueError("`image_folder` is for annotations from elsewhere, and source is sample")
        if abs(sum(self.splits.values()) - 1) > 1e-6 or min(self.splits.values()) < 0:
            raise ValueError(f"shares of `splits` must add up to 1, found {self.splits}")
        if self.format in ("refer", "alto_jsonl") and (
            self.expressions.multiple or self.expressions.no_target
        ):
            raise ValueError(f"format `{self.format}` holds expressions of one object only")
        return self

    def split_of(self, index: int) -> str:
        """Split of image `index`: splits follow one another in the order given."""
        end = 0.0
        for name, share in self.splits.items():
            end += share * self.images
            if index < round(end):
                return name
        return name


def write_dataset_file(
    output: Path, format_: Format, name: str, source: str, own_image_ids: bool = False
) -> None:
    """Write `dataset.json`, by which the next stage chooses its reader.

    own_image_ids: whether image ids mean nothing outside the data set, whatever its format's mean.
    """
    content: dict[str, str | bool] = {"format": format_, "name": name, "source": source}
    if own_image_ids:
        content["own_image_ids"] = True
    (output / DATASET_FILE).write_text(json.dumps(content, indent=1) + "\n")
