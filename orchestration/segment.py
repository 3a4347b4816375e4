"""`alto segment`: images and expressions to masks, overlays and JSON lines."""

from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import InputError
from orchestration.tokenize import ModelOption

TokenizerOption = Annotated[
    str | None,
    typer.Option(help="Mask tokenizer, given as --model; default: the one the model was trained with."),
]


def segment(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="JPEG or PNG files.")],
    ref: Annotated[
        list[str],
        typer.Option(metavar="TEXT", help="What to segment in each image; may be given several times."),
    ],
    out: Annotated[Path, typer.Option(help="New folder for masks, overlays and segments.jsonl.")],
    full_length: Annotated[
        bool, typer.Option("--full-length", help="Ask for masks of full length, not as long as they need.")
    ] = False,
    max_tokens: Annotated[int | None, typer.Option(help="Codes of a mask, at most.")] = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
) -> None:
    """Write a mask and an overlay for each image and expression, and segments.jsonl, and print its lines."""
    if full_length and max_tokens is not None:
        raise InputError("give --full-length or --max-tokens, not both")
    from orchestration.segment_files import segment_files
    from orchestration.trained_models import load_segmenter

    segmenter = load_segmenter(model, tokenizer)
    for line in segment_files(segmenter, images, ref, out, adaptive=not full_length, max_tokens=max_tokens):
        print(line.model_dump_json())
