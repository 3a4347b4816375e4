"""Base weights that training starts from, with where they come from, their checksum and licence.

The output holds one folder a model (`altollm`, `tokenizer`): the checkpoint folder named in the parameters, or what
published files are converted to. A model without a source is left out: its stage then starts from nothing.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from alto_models.weight_files import weights_sha256
from data_contracts.errors import InputError
from jobs.acquisition.fetch import fetch
from jobs.acquisition.local_folder import existing_folder
from jobs.acquisition.transfer_settings import DataLinks, Places
from jobs.runner.context import JobConfig, StageContext, StageReport

TENSOR_SUFFIXES = frozenset({".pth", ".pt", ".bin", ".safetensors"})


class Source(Places[DataLinks]):
    """A checkpoint folder: `config.json`, weights in one safetensors file or in shards, and what else belongs to it.

    From a folder, from links or from a bucket, of which one is given.
    """

    sha256: str | None = Field(
        default=None,
        description="of model.safetensors; of shards: of what `sha256sum` prints of them;"
        " null only with `links`, which have checksums of their own",
        pattern="^[0-9a-f]{64}$",
    )
    licence: str = Field(min_length=1, description="under which the weights may be used")
    published: bool = Field(
        default=False,
        description="the files are as published and are converted: SAM's, with or without TiTok's, for `tokenizer`;"
        " a folder of InternVL-Chat for `altollm`",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if len(self.given) != 1:
            raise ValueError(
                f"give one of `folder`, `links` and `s3`, found {', '.join(self.given) or 'none'}"
            )
        if self.sha256 is None and self.links is None:
            raise ValueError("`sha256` is missing; `alto convert` prints it")
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
    sources: tuple[tuple[str, Source | None, Callable[[Path, Path], None]], ...] = (
        ("altollm", config.altollm, _convert_altollm),
        ("tokenizer", config.tokenizer, _convert_tokenizer),
    )
    for name, source, convert in sources:
        if source is None:
            figures[f"{name}_source"] = "none"
            continue
        target = context.output / name
        if source.published:
            convert(_published_files(source, name, context), target)
        else:
            _fetch(source, target, context)
        figures |= {
            f"{name}_source": source.name,
            f"{name}_sha256": _checked(source, target),
            f"{name}_licence": source.licence,
        }
    return StageReport(figures=figures)


def _fetch(source: Source, target: Path, context: StageContext) -> None:
    # A checkpoint is flat: what lies in folders below it, such as a cache or version control, is left out.
    fetch(
        source, target, lambda path: len(path.parts) == 1, context.work / "downloads" / target.name, context
    )


def _published_files(source: Source, name: str, context: StageContext) -> Path:
    """Folder of the files to convert; what was fetched is found again by a run after a kill."""
    if source.folder is not None:
        return existing_folder(source.folder)
    whole = context.work / "published" / name
    if not whole.exists():
        partial = context.work / "incomplete" / name
        shutil.rmtree(partial, ignore_errors=True)
        _fetch(source, partial, context)
        whole.parent.mkdir(exist_ok=True)
        partial.rename(whole)
    return whole


def _checked(source: Source, folder: Path) -> str:
    found = weights_sha256(folder)
    if source.sha256 not in (None, found):
        raise InputError(
            f"base weights: those of {source.name} have checksum {found}, the parameters say {source.sha256}; "
            "fetch them again, or correct `sha256` if the new weights are meant"
        )
    return found


def _convert_altollm(published: Path, target: Path) -> None:
    from alto_models.published.convert_altollm import convert_altollm

    convert_altollm(published, target)


def _convert_tokenizer(published: Path, target: Path) -> None:
    from alto_models.published.starting_weights import convert_starting_weights, is_sam
    from alto_models.published.tensor_file import read_tensors

    files = sorted(path for path in published.iterdir() if path.suffix in TENSOR_SUFFIXES)
    sam = [path for path in files if is_sam(read_tensors(path))]
    others = [path for path in files if path not in sam]
    if len(sam) != 1 or len(others) > 1:
        raise InputError(
            f"base weights: {published.name} holds {len(sam)} files of SAM and {len(others)} others;"
            " one of SAM is needed, and one of TiTok may come with it"
        )
    convert_starting_weights(sam[0], others[0] if others else None, target)


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("base_weights")
