"""SAM and TiTok as published, in sizes small enough for tests."""

import torch
from torch import Tensor

from alto_models.published.config import TransformerSize
from alto_models.published.sam_encoder import published_sam_name
from alto_models.published.titok_blocks import transformer
from alto_models.tokenizer.config import SamPixelEncoderConfig
from alto_models.tokenizer.pixel_encoder import SamPixelEncoder

SAM = SamPixelEncoderConfig(
    width=16, layers=2, heads=2, grid=8, window=3, global_layers=(1,), embedding_width=12
)


def random(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator) / 8


def sam_tensors(size: SamPixelEncoderConfig = SAM) -> dict[str, Tensor]:
    """A whole SAM of this size, with made-up values."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"image_encoder.{published_sam_name(name.removeprefix('sam.'))}": random(
            *tensor.shape, generator=generator
        )
        for name, tensor in SamPixelEncoder(size).state_dict().items()
    }
    others = ("prompt_encoder.not_a_point_embed.weight", "mask_decoder.iou_token.weight")
    return tensors | {name: torch.zeros(1, 8) for name in others}


def titok_tensors(width: int = 128, decoder_width: int = 128) -> dict[str, Tensor]:
    """A TiTok with two encoder layers and one decoder layer, with made-up values."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for part, size in (
        ("encoder", TransformerSize(width=width, layers=2)),
        ("decoder", TransformerSize(width=decoder_width, layers=1)),
    ):
        for name, tensor in transformer(size).state_dict().items():
            tensors[f"{part}.transformer.{name}"] = random(*tensor.shape, generator=generator)
        for name in ("ln_pre", "ln_post"):
            for kind in ("weight", "bias"):
                tensors[f"{part}.{name}.{kind}"] = random(size.width, generator=generator)
        for name in ("class_embedding", "positional_embedding", "latent_token_positional_embedding"):
            tensors[f"{part}.{name}"] = random(1, size.width, generator=generator)
    others = (
        "latent_tokens",
        "encoder.patch_embed.weight",
        "encoder.conv_out.bias",
        "decoder.mask_token",
        "decoder.decoder_embed.weight",
        "decoder.ffn.0.weight",
        "decoder.conv_out.weight",
        "quantize.embedding.weight",
        "pixel_quantize.embedding.weight",
        "pixel_decoder.conv_in.weight",
    )
    return tensors | {name: torch.zeros(3) for name in others}
