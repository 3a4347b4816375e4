"""Base weights that training starts from, with where they come from, their checksum and licence.

The output holds one folder a model (`altollm`, `tokenizer`), a copy of the checkpoint folder named in the
parameters. A model without a source is left out: its stage then starts from nothing.
"""

import shutil
from pathlib import Path

from pydantic import Field

from alto_models.weight_files import weights_sha256
from data_contracts.errors import InputError
from jobs.runner.context import JobConfig, StageContext, StageReport


class Source(JobConfig):
    """A checkpoint folder: `config.json`, weights in one safetensors file or in shards, and what else belongs to it."""

    folder: Path = Field(description="relative to the project root, or absolute")
    sha256: str = Field(
        description="of model.safetensors; of shards: of what `sha256sum` prints of them",
        pattern="^[0-9a-f]{64}$",
    )
    licence: str = Field(min_length=1, description="under which the weights may be used")


class Config(JobConfig):
    altollm: Source | None = Field(default=None, description="language model to fine-tune")
    tokenizer: Source | None = Field(default=None, description="mask tokenizer to go on from")


def run(config: Config, context: StageContext) -> StageReport:
    figures: dict[str, str] = {}
    for name, source in (("altollm", config.altollm), ("tokenizer", config.tokenizer)):
        if source is None:
            figures[f"{name}_source"] = "none"
            continue
        _copy(source, context.output / name)
        figures |= {
            f"{name}_source": source.folder.name,
            f"{name}_sha256": source.sha256,
            f"{name}_licence": source.licence,
        }
    return StageReport(figures=figures)


def _copy(source: Source, target: Path) -> None:
    if not source.folder.is_dir():
        raise InputError(
            f"base weights: {source.folder} does not exist; correct `folder` or set the model to null"
        )
    found = weights_sha256(source.folder)
    if found != source.sha256:
        raise InputError(
            f"base weights: those in {source.folder} have checksum {found}, the parameters say {source.sha256}; "
            "fetch them again, or correct `sha256` if the new weights are meant"
        )
    target.mkdir(parents=True)
    for path in sorted(source.folder.iterdir()):
        if path.is_file():
            shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("base_weights")
