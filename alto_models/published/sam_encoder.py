"""SAM's image encoder (arXiv 2304.02643): transformers' network, and the names of the published tensors."""

import re

from torch import Tensor
from transformers import SamVisionConfig, SamVisionModel
from transformers.models.sam.modeling_sam import SamVisionSdpaAttention

from alto_models.published.config import PATCH_SIZE, SamSize

# SAM's pixel normalisation, on values 0..255, RGB.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

# Name in `SamVisionModel` -> published name; first match wins.
_PUBLISHED_NAMES = (
    (r"pos_embed", "pos_embed"),
    (r"patch_embed\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"layers\.(\d+)\.layer_norm([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    (r"layers\.(\d+)\.(.+)", r"blocks.\1.\2"),
    (r"neck\.conv1\.(.+)", r"neck.0.\1"),
    (r"neck\.layer_norm1\.(.+)", r"neck.1.\1"),
    (r"neck\.conv2\.(.+)", r"neck.2.\1"),
    (r"neck\.layer_norm2\.(.+)", r"neck.3.\1"),
)


class PublishedAttention(SamVisionSdpaAttention):
    """SAM's attention as ALTo was trained with it: relative positions meet the query after its scaling."""

    def get_decomposed_rel_pos(
        self,
        query: Tensor,
        rel_pos_h: Tensor,
        rel_pos_w: Tensor,
        q_size: tuple[int, int],
        k_size: tuple[int, int],
    ) -> Tensor:
        scaled = query * self.scale
        out: Tensor = super().get_decomposed_rel_pos(scaled, rel_pos_h, rel_pos_w, q_size, k_size)
        return out


def sam_encoder(size: SamSize) -> SamVisionModel:
    config = SamVisionConfig(
        hidden_size=size.width,
        output_channels=size.embedding_width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.grid * PATCH_SIZE,
        patch_size=PATCH_SIZE,
        window_size=size.window,
        global_attn_indexes=list(size.global_layers),
        mlp_dim=4 * size.width,
    )
    model = SamVisionModel(config)
    for layer in model.vision_encoder.layers:
        layer.attn = PublishedAttention(config, layer.window_size)
    return model


def published_sam_name(name: str) -> str:
    """Name of a tensor in SAM's `image_encoder`, from its name in `SamVisionModel`.

    `vision_encoder.layers.0.layer_norm1.weight` -> `blocks.0.norm1.weight`
    """
    inner = name.removeprefix("vision_encoder.")
    for pattern, published in _PUBLISHED_NAMES:
        match = re.fullmatch(pattern, inner)
        if match:
            return match.expand(published)
    raise ValueError(f"SamVisionModel has a tensor that SAM has not: {name}")
