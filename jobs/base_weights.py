"""Base weights that training starts from, with where they come from, their checksum and licence.

The output holds one folder a model (`altollm`, `tokenizer`), a copy of the checkpoint folder named in the
parameters. A model without a source is left out: its stage then starts from nothing.
"""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from alto_models.weight_files import weights_sha256
from data_contracts.errors import InputError
from jobs.acquisition.fetch import fetch
from jobs.acquisition.transfer_settings import DataLinks, Places
from jobs.runner.context import JobConfig, StageContext, StageReport


class Source(Places[DataLinks]):
    """A checkpoint folder: `config.json`, weights in one safetensors file or in shards, and what else belongs to it.

    From a folder, from links or from a bucket, of which one is given.
    """

    sha256: str = Field(
        description="of model.safetensors; of shards: of what `sha256sum` prints of them",
        pattern="^[0-9a-f]{64}$",
    )
    licence: str = Field(min_length=1, description="under which the weights may be used")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if len(self.given) != 1:
            raise ValueError(
                f"give one of `folder`, `links` and `s3`, found {', '.join(self.given) or 'none'}"
            )
        return self

    @property
    def name(self) -> str:
        """For people: the folder, the bucket and prefix, or that links were followed."""
        if self.folder is not None:
            return Path(self.folder).name
        return self.s3.url if self.s3 is not None else "links"


class Config(JobConfig):
    altollm: Source | None = Field(default=None, description="language model to fine-tune")
    tokenizer: Source | None = Field(default=None, description="mask tokenizer to go on from")


def run(config: Config, context: StageContext) -> StageReport:
    figures: dict[str, str] = {}
    for name, source in (("altollm", config.altollm), ("tokenizer", config.tokenizer)):
        if source is None:
            figures[f"{name}_source"] = "none"
            continue
        _acquire(source, context.output / name, context)
        figures |= {
            f"{name}_source": source.name,
            f"{name}_sha256": source.sha256,
            f"{name}_licence": source.licence,
        }
    return StageReport(figures=figures)


def _acquire(source: Source, target: Path, context: StageContext) -> None:
    # A checkpoint is flat: what lies in folders below it, such as a cache or version control, is left out.
    downloads = context.work / "downloads" / target.name
    fetch(source, target, lambda path: len(path.parts) == 1, downloads, context)
    found = weights_sha256(target)
    if found != source.sha256:
        raise InputError(
            f"base weights: those of {source.name} have checksum {found}, the parameters say {source.sha256}; "
            "fetch them again, or correct `sha256` if the new weights are meant"
        )


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("base_weights")
