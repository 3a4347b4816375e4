"""SAM's image encoder (arXiv 2304.02643): names and sizes of the published tensors, and ALTo's variant of it."""

import re
from collections.abc import Mapping

from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionSdpaAttention

from alto_models.published.tensor_file import layer_count, renamed
from alto_models.tokenizer.config import SamSize
from alto_models.tokenizer.pixel_encoder import sam_network

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


def sam_encoder_of_alto(size: SamSize) -> nn.Module:
    """`SamVisionModel` with the attention ALTo was trained with; new training uses SAM's own."""
    model = sam_network(size)
    for layer in model.vision_encoder.layers:
        layer.attn = PublishedAttention(model.config, layer.window_size)
    return model


def published_sam_name(name: str) -> str:
    """Name of a tensor in SAM's `image_encoder`, from its name in `SamVisionModel`.

    `vision_encoder.layers.0.layer_norm1.weight` -> `blocks.0.norm1.weight`
    """
    return renamed(name.removeprefix("vision_encoder."), _PUBLISHED_NAMES)


def published_sam_size(published: Mapping[str, Tensor], prefix: str) -> SamSize:
    """Sizes of the SAM whose published names start with `prefix`.

    The number of relative positions tells the layers with and without windows apart.
    Raises KeyError, IndexError, ValueError or pydantic's ValidationError where the tensors are not SAM's.
    """
    _, grid, _, width = published[prefix + "pos_embed"].shape
    layers = layer_count(published, re.escape(prefix) + r"blocks")
    relative = [published[f"{prefix}blocks.{layer}.attn.rel_pos_h"] for layer in range(layers)]
    spans = [(table.shape[0] + 1) // 2 for table in relative]
    return SamSize(
        width=width,
        layers=layers,
        heads=width // relative[0].shape[1],
        grid=grid,
        window=min(spans),
        global_layers=tuple(layer for layer, span in enumerate(spans) if span == grid),
        embedding_width=published[prefix + "neck.0.weight"].shape[0],
    )
