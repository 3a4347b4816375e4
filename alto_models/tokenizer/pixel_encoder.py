"""Pixel encoder: the image crop becomes features for the de-tokenizer, once for all its masks."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from alto_models.tokenizer.config import (
    SAM_PATCH_SIZE,
    ConvPixelEncoderConfig,
    PixelEncoderConfig,
    SamPixelEncoderConfig,
    SamSize,
)
from alto_models.tokenizer.transformer import initialise

# SAM's pixel normalisation, on values 0..255, RGB.
SAM_PIXEL_MEAN = (123.675, 116.28, 103.53)
SAM_PIXEL_STD = (58.395, 57.12, 57.375)


class ConvPixelEncoder(nn.Module):
    """Small convolution net of stride 4.

    images (B, 3, S, S) in 0..1 -> (B, width, S / 4, S / 4); S / 4 is 4 features a mask slot and side.
    """

    def __init__(self, config: ConvPixelEncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.embedding_width = width
        self.down = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        )
        self.refine = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.down(images * 4 - 2)
        out: Tensor = features + self.refine(features)
        return out


class SamPixelEncoder(nn.Module):
    """SAM's image encoder (arXiv 2304.02643), frozen: no gradients, always in evaluation mode.

    images (B, 3, S, S) in 0..1, RGB -> (B, embedding_width, S / 16, S / 16).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: SamPixelEncoderConfig) -> None:
        super().__init__()
        self.embedding_width = config.embedding_width
        self.sam = sam_network(config)
        # On the model's device from the start, so that no step waits for a copy from the host.
        self.register_buffer("mean", torch.tensor(SAM_PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(SAM_PIXEL_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode whatever the rest of the tokenizer does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.sam((images * 255 - self.mean) / self.std).last_hidden_state
        return out


def build_pixel_encoder(config: PixelEncoderConfig) -> ConvPixelEncoder | SamPixelEncoder:
    return SamPixelEncoder(config) if config.kind == "sam" else ConvPixelEncoder(config)


def sam_network(size: SamSize) -> Any:
    """transformers' `SamVisionModel`, with weights as transformers initialises them.

    transformers makes the indices of relative positions on the host, and every layer would wait for their
    copy to the device; hence `relative_positions`.
    """
    from transformers import SamVisionConfig, SamVisionModel

    config = SamVisionConfig(
        hidden_size=size.width,
        output_channels=size.embedding_width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.image_size,
        patch_size=SAM_PATCH_SIZE,
        window_size=size.window,
        global_attn_indexes=list(size.global_layers),
        mlp_dim=4 * size.width,
    )
    model = SamVisionModel(config)
    for layer in model.vision_encoder.layers:
        layer.attn.get_rel_pos = relative_positions
    return model


def relative_positions(queries: int, keys: int, table: Tensor) -> Tensor:
    """Rows of `table` (2 keys - 1, C) by query and key place along one axis, (queries, keys, C); queries = keys."""
    places = torch.arange(keys, device=table.device)
    return table[places[:, None] - places + keys - 1]
