"""Base weights that training starts from, with where they come from, their checksum and licence.

The output holds one folder a model (`altollm`, `tokenizer`), a copy of the checkpoint folder named in the
parameters. A model without a source is left out: its stage then starts from nothing.
"""

import hashlib
import shutil
from pathlib import Path

from pydantic import Field

from data_contracts.errors import InputError
from jobs.runner.context import JobConfig, StageContext, StageReport

_BLOCK = 2**20


class Source(JobConfig):
    """A checkpoint folder: `config.json`, `model.safetensors` and what else belongs to it."""

    folder: Path = Field(description="relative to the project root, or absolute")
    sha256: str = Field(description="of model.safetensors", pattern="^[0-9a-f]{64}$")
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
    weights = source.folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"base weights: {weights} does not exist; correct `folder` or set the model to null")
    found = _sha256(weights)
    if found != source.sha256:
        raise InputError(
            f"base weights: {weights} has checksum {found}, the parameters say {source.sha256}; "
            "fetch the file again, or correct `sha256` if the new weights are meant"
        )
    target.mkdir(parents=True)
    for path in sorted(source.folder.iterdir()):
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("base_weights")
