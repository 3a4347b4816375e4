"""`alto convert`: published weights into the layouts this project reads."""

from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import InputError

app = typer.Typer(help="Turn published weights into this project's layouts.", no_args_is_help=True)


@app.callback()
def convert() -> None:
    """Turn published weights into this project's layouts."""


@app.command()
def altollm(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Published InternVL-Chat or ALToLLM folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="New folder, in transformers' layout.")],
) -> None:
    """Convert the language model and its tokenizer; token ids stay as they are."""
    from alto_models.published.convert_altollm import convert_altollm
    from alto_models.weight_files import weights_sha256

    done = convert_altollm(source, target)
    print(f"wrote {target}: {done.tensors} tensors in {done.files} file(s), {done.ignored} left out")
    _print_source("altollm", target, weights_sha256(target))


@app.command()
def tokenizer(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Published mask tokenizer (alto.pth), or SAM (sam_vit_l_….pth)."),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder for config.json and the weights.")],
    titok: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With SAM: TiTok's weights, for the transformers.")
    ] = None,
) -> None:
    """Convert a mask tokenizer, or make a folder that the training of one can start from.

    Every tensor is used or known not to be needed, and every value stays as it is.
    """
    from alto_models.published.convert_tokenizer import convert_tokenizer
    from alto_models.published.starting_weights import convert_starting_weights, is_sam
    from alto_models.published.tensor_file import read_tensors
    from alto_models.weight_files import weights_sha256

    if is_sam(read_tensors(source)):
        start = convert_starting_weights(source, titok, target)
        print(f"wrote {target}: {len(start.tensors)} tensors, {start.ignored} not needed")
        _print_source("tokenizer", target, weights_sha256(target))
        return
    if titok is not None:
        raise InputError(f"{source} is a whole mask tokenizer; --titok goes with the weights of SAM")
    config = convert_tokenizer(source, target)
    print(f"wrote {target}: masks of {16 * config.grid} px, up to {config.max_length} codes")


def _print_source(model: str, folder: Path, checksum: str) -> None:
    print(f"for base_weights in params.yaml: {model}: {{folder: {folder}, sha256: {checksum}, licence: …}}")
