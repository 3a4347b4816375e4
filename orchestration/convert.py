"""`alto convert`: published weights into the layouts this project reads."""

from pathlib import Path
from typing import Annotated

import typer

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

    done = convert_altollm(source, target)
    print(f"wrote {target}: {done.tensors} tensors in {done.files} file(s), {done.ignored} left out")


@app.command()
def tokenizer(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Published mask tokenizer, alto.pth.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder for config.json and the weights.")],
) -> None:
    """Convert the mask tokenizer; every tensor is used, and every value stays as it is."""
    from alto_models.published.convert_tokenizer import convert_tokenizer

    config = convert_tokenizer(source, target)
    print(f"wrote {target}: masks of {16 * config.grid} px, up to {config.max_length} codes")
