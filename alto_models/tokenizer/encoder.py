"""Mask encoder: a binary mask becomes L latents in causal order, and a summary feature."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.transformer import Transformer, grid_positions, initialise


class EncodedMask(NamedTuple):
    """summary (B, W): the CLS feature; latents (B, L, W)."""

    summary: Tensor
    latents: Tensor


class MaskEncoder(nn.Module):
    """ViT over mask patches, a CLS token and L learned latents (paper, section 3.1).

    Patches and CLS do not see the latents, and latent i sees no latent after it: whatever happens
    to latent j leaves latents before j as they are, so a prefix of codes means the same everywhere.
    """

    attention_mask: Tensor
    positions: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = _stem(config.mask_size // config.grid, width)
        # Small, so that what the tokens gather from the mask outweighs what they start from.
        self.summary = nn.Parameter(0.3 * torch.randn(1, 1, width))
        self.latents = nn.Parameter(0.3 * torch.randn(1, config.max_length, width))
        self.transformer = Transformer(width, config.heads, config.encoder_layers)
        patches = config.grid**2
        self.register_buffer("positions", grid_positions(config.grid, width), persistent=False)
        mask = causal_latent_mask(patches + 1, config.max_length)
        self.register_buffer("attention_mask", mask, persistent=False)

    def forward(self, masks: Tensor) -> EncodedMask:
        """masks (B, 1, M, M) in 0..1."""
        batch = masks.shape[0]
        patches = self.stem(masks * 2 - 1).flatten(2).transpose(1, 2) + self.positions
        tokens = torch.cat(
            [patches, self.summary.expand(batch, -1, -1), self.latents.expand(batch, -1, -1)], dim=1
        )
        features = self.transformer(tokens, self.attention_mask, slice(patches.shape[1], None))
        return EncodedMask(summary=features[:, 0], latents=features[:, 1:])


def causal_latent_mask(context: int, latents: int) -> Tensor:
    """(T, T) bool, T = context + latents: context sees context; latent i sees context and latents <= i."""
    total = context + latents
    mask = torch.ones(total, total, dtype=torch.bool).tril()
    mask[:context, :context] = True
    return mask


def _stem(patch: int, width: int) -> nn.Sequential:
    """Overlapping 3 x 3 convolutions of stride 2 down to one feature a patch; `patch` is a power of 2."""
    halvings = patch.bit_length() - 1
    widths = [1, *(width >> (halvings - 1 - level) for level in range(halvings))]
    layers: list[nn.Module] = []
    for level in range(halvings):
        layers += [nn.Conv2d(widths[level], widths[level + 1], 3, stride=2, padding=1), nn.GELU()]
    layers.append(nn.Conv2d(width, width, 1))
    stem = nn.Sequential(*layers)
    initialise(stem)
    return stem
