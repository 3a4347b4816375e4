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
