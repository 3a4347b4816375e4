"""`alto register`: checkpoints made outside the lineage as versions in the model registry."""

from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import InputError, first_line

app = typer.Typer(help="Register checkpoints that were not trained here.", no_args_is_help=True)


@app.callback()
def register() -> None:
    """Register checkpoints that were not trained here."""


@app.command()
def tokenizer(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="As `alto convert tokenizer` writes it.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights, kept with the version.")],
) -> None:
    """Register a mask tokenizer, so that --model models:/alto-tokenizer/N names it; aliases stay as they are."""
    from mlflow.exceptions import MlflowException

    from alto_models.tokenizer.any_tokenizer import load_any_tokenizer
    from jobs.runner.layout import project_root
    from jobs.runner.registry import REGISTERED_MODELS, register_folder

    root = project_root()
    load_any_tokenizer(folder)
    try:
        done = register_folder(root, folder.resolve(), REGISTERED_MODELS["tokenizer_stage1_5"], licence)
    except (MlflowException, OSError) as error:
        raise InputError(f"{folder}: cannot be registered in MLflow ({first_line(error)})") from error
    print(f"models:/{done.model}/{done.version} ({done.how})")
