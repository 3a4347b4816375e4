"""`alto tokenize` and `alto detokenize`: mask files to JSON lines of codes, and back to PNG files."""

from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import InputError

ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint folder, models:/NAME/VERSION or models:/NAME@ALIAS; "
        "default: the registered champion, else the newest trained."
    ),
]


def tokenize(
    masks: Annotated[
        list[Path],
        typer.Argument(metavar="MASK...", help="PNG files of two grey levels; 0 is outside the mask."),
    ],
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Image of all masks; or given once for each mask, in their order."),
    ] = None,
    model: ModelOption = None,
    quality: Annotated[
        float | None, typer.Option(help="Keep as few codes as reach this IoU; all where none does.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Keep at most so many codes.")] = None,
    threshold: Annotated[
        int | None, typer.Option(help="For masks of more levels: the lowest one inside, such as 128.")
    ] = None,
) -> None:
    """Print one JSON line a mask: codes, length, original size, image."""
    from orchestration.token_lines import pair_images, tokenize_files
    from orchestration.trained_models import load_trained_tokenizer

    images = pair_images(masks, image or [])
    tokenizer = load_trained_tokenizer(model)
    for line in tokenize_files(tokenizer, masks, images, quality, max_tokens, threshold):
        print(line.model_dump_json())


def detokenize(
    out: Annotated[Path, typer.Option(help="Folder for the PNG files; those of equal names are replaced.")],
    file: Annotated[Path | None, typer.Option(help="Lines of `alto tokenize`; default: stdin.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Image of all lines; default: the image that each line names.")
    ] = None,
    model: ModelOption = None,
) -> None:
    """Write the masks of JSON lines as PNG files of their original size; print one JSON line a file."""
    from orchestration.token_lines import detokenize_lines, read_lines, write_masks
    from orchestration.trained_models import load_trained_tokenizer

    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: not a folder; give --out a folder")
    lines = read_lines(file, image)
    pictures = detokenize_lines(load_trained_tokenizer(model), lines)
    for written in write_masks(out, lines, pictures):
        print(written.model_dump_json())
