"""Published `alto.pth` -> checkpoint folder for `load_published_tokenizer`.

Every published tensor is either used or on `NOT_NEEDED`, every tensor of the network is there, every shape
fits; otherwise nothing is written.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from alto_models.checkpoint import save_checkpoint
from alto_models.published.config import PublishedTokenizerConfig, TransformerSize
from alto_models.published.sam_encoder import published_sam_name, published_sam_size
from alto_models.published.tensor_file import check_tensors, layer_count, read_tensors, reading_sizes
from alto_models.published.tokenizer import PublishedTokenizer

# Follows from the sizes: which tokens the encoder's attention hides.
NOT_NEEDED = frozenset({"encoder.attn_mask"})
_SAM = "sam.image_encoder."


def convert_tokenizer(source: Path, folder: Path) -> PublishedTokenizerConfig:
    """Write the tokenizer in the file `source` into `folder`, and return its sizes.

    Raises InputError, naming file and tensor, when `source` is no published tokenizer.
    """
    config, tensors = converted(read_tensors(source), str(source))
    save_checkpoint(folder, config, tensors)
    return config


def converted(
    published: Mapping[str, Tensor], source: str
) -> tuple[PublishedTokenizerConfig, dict[str, Tensor]]:
    """Sizes and state dict of the `PublishedTokenizer` that a published state dict describes.

    Raises InputError for a tensor that is missing, unknown or of another shape, naming `source`.
    """
    needed = {name: tensor for name, tensor in published.items() if name not in NOT_NEEDED}
    config = sizes(needed, source)
    with torch.device("meta"):
        network = PublishedTokenizer(config).state_dict()
    check_tensors(needed, {published_name(name): tensor.shape for name, tensor in network.items()}, source)
    return config, {name: needed[published_name(name)] for name in network}


def published_name(name: str) -> str:
    """Published name of a tensor of `PublishedTokenizer`: the same, but for SAM."""
    prefix = "pixel_encoder."
    return _SAM + published_sam_name(name.removeprefix(prefix)) if name.startswith(prefix) else name


def sizes(published: Mapping[str, Tensor], source: str) -> PublishedTokenizerConfig:
    """Read the sizes off the shapes. Raises InputError when a tensor this needs is missing or odd."""
    with reading_sizes(source, "a published ALTo tokenizer"):
        return PublishedTokenizerConfig(
            encoder=transformer_size(published, "encoder"),
            decoder=transformer_size(published, "decoder"),
            grid=math.isqrt(published["encoder.positional_embedding"].shape[0] - 1),
            max_length=published["latent_tokens"].shape[0],
            codebook_size=published["quantize.embedding.weight"].shape[0],
            code_width=published["quantize.embedding.weight"].shape[1],
            pixel_decoder_in=published["pixel_decoder.conv_in.weight"].shape[1],
            pixel_decoder_width=published["pixel_decoder.norm_out.weight"].shape[0],
            pixel_encoder=published_sam_size(published, _SAM),
        )


def transformer_size(published: Mapping[str, Tensor], part: str) -> TransformerSize:
    """Size of TiTok's `encoder` or `decoder`, which ALTo's have, too."""
    width = published[f"{part}.class_embedding"].shape[1]
    return TransformerSize(width=width, layers=layer_count(published, rf"{part}\.transformer"))
