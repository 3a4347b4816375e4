"""SAM's and TiTok's published weights -> a folder that training starts from (`load_starting_weights`).

Every published tensor is either used or on a list of those not needed, every module that is given is given
whole, every shape fits; otherwise nothing is written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alto_models.checkpoint import save_checkpoint
from alto_models.published.config import HEAD_WIDTH
from alto_models.published.convert_tokenizer import transformer_size
from alto_models.published.sam_encoder import published_sam_name, published_sam_size
from alto_models.published.tensor_file import check_tensors, read_tensors, reading_sizes, renamed
from alto_models.tokenizer.config import SamPixelEncoderConfig
from alto_models.tokenizer.pixel_encoder import SamPixelEncoder
from alto_models.tokenizer.starting_weights import StartingSizes
from alto_models.tokenizer.transformer import Transformer
from data_contracts.errors import InputError

_SAM = "image_encoder."
SAM_NOT_NEEDED = (r"prompt_encoder\..+", r"mask_decoder\..+")

# The blocks and the norm after them are the same networks; stems, positions, quantisers and heads are not.
TITOK_NOT_NEEDED = (
    r"latent_tokens",
    r"(encoder|decoder)\.(class_embedding|positional_embedding|latent_token_positional_embedding)",
    r"(encoder|decoder)\.(ln_pre|conv_out)\..+",
    r"encoder\.patch_embed\..+",
    r"decoder\.(mask_token|decoder_embed\..+|ffn\..+)",
    r"(quantize|pixel_quantize|pixel_decoder)\..+",
)

# Name in our `Transformer` -> published name below `encoder` or `decoder`; first match wins.
_TITOK_NAMES = (
    (r"norm\.(.+)", r"ln_post.\1"),
    (r"blocks\.(\d+)\.norm_attention\.(.+)", r"transformer.\1.ln_1.\2"),
    (r"blocks\.(\d+)\.attention\.qkv\.(.+)", r"transformer.\1.attn.in_proj_\2"),
    (r"blocks\.(\d+)\.attention\.out\.(.+)", r"transformer.\1.attn.out_proj.\2"),
    (r"blocks\.(\d+)\.norm_mlp\.(.+)", r"transformer.\1.ln_2.\2"),
    (r"blocks\.(\d+)\.mlp\.0\.(.+)", r"transformer.\1.mlp.c_fc.\2"),
    (r"blocks\.(\d+)\.mlp\.2\.(.+)", r"transformer.\1.mlp.c_proj.\2"),
)


@dataclass(frozen=True, kw_only=True)
class StartingWeights:
    """sizes: which the tensors were made for; tensors: by name in `MaskTokenizer`; ignored: how many were not
    needed."""

    sizes: StartingSizes
    tensors: dict[str, Tensor]
    ignored: int


def is_sam(published: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a whole SAM."""
    return any(name.startswith(_SAM) for name in published)


def convert_starting_weights(sam: Path, titok: Path | None, folder: Path) -> StartingWeights:
    """Write the pixel encoder of the file `sam`, and the transformers of the file `titok`, into `folder`.

    Raises InputError, naming file and tensor, when a file holds something else.
    """
    weights = from_sam(read_tensors(sam), str(sam))
    if titok is not None:
        blocks = from_titok(read_tensors(titok), str(titok))
        weights = StartingWeights(
            sizes=blocks.sizes.model_copy(update={"pixel_encoder": weights.sizes.pixel_encoder}),
            tensors=weights.tensors | blocks.tensors,
            ignored=weights.ignored + blocks.ignored,
        )
    save_checkpoint(folder, weights.sizes, weights.tensors)
    return weights


def from_sam(published: Mapping[str, Tensor], source: str) -> StartingWeights:
    """The pixel encoder, from SAM's state dict."""
    needed = _without(published, SAM_NOT_NEEDED)
    with reading_sizes(source, "SAM"):
        size = SamPixelEncoderConfig.model_validate(published_sam_size(needed, _SAM).model_dump())
    with torch.device("meta"):
        network = SamPixelEncoder(size).state_dict()
    names = {name: _SAM + published_sam_name(name.removeprefix("sam.")) for name in network}
    check_tensors(needed, {names[name]: tensor.shape for name, tensor in network.items()}, source)
    return StartingWeights(
        sizes=StartingSizes(pixel_encoder=size),
        tensors={f"pixel_encoder.{name}": needed[names[name]] for name in network},
        ignored=len(published) - len(needed),
    )


def from_titok(published: Mapping[str, Tensor], source: str) -> StartingWeights:
    """The transformers of encoder and de-tokenizer, from TiTok's state dict (arXiv 2406.07550)."""
    needed = _without(published, TITOK_NOT_NEEDED)
    with reading_sizes(source, "TiTok"):
        encoder, decoder = (transformer_size(published, part) for part in ("encoder", "decoder"))
    if encoder.width != decoder.width:
        raise InputError(
            f"{source}: encoder and decoder have widths {encoder.width} and {decoder.width}; "
            "the mask tokenizer has one width for both"
        )
    heads = encoder.width // HEAD_WIDTH
    names, shapes = {}, {}
    for ours, part, size in (("encoder", "encoder", encoder), ("detokenizer", "decoder", decoder)):
        with torch.device("meta"):
            network = Transformer(size.width, heads, size.layers).state_dict()
        for name, tensor in network.items():
            names[f"{ours}.transformer.{name}"] = f"{part}.{renamed(name, _TITOK_NAMES)}"
            shapes[names[f"{ours}.transformer.{name}"]] = tensor.shape
    check_tensors(needed, shapes, source)
    return StartingWeights(
        sizes=StartingSizes(
            width=encoder.width,
            heads=heads,
            encoder_layers=encoder.layers,
            decoder_layers=decoder.layers,
        ),
        tensors={name: needed[titok] for name, titok in names.items()},
        ignored=len(published) - len(needed),
    )


def _without(published: Mapping[str, Tensor], patterns: Sequence[str]) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in published.items()
        if not any(re.fullmatch(pattern, name) for pattern in patterns)
    }
