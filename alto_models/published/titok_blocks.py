"""Encoder, length predictor and de-tokenizer of the published ALTo, which grew out of TiTok
(arXiv 2406.07550). Modules carry the names of the published tensors.

Shapes: B masks, L codes at full length, G patches a side, W width, D code width, M = 16 G mask side.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alto_models.published.config import HEAD_WIDTH, PATCH_SIZE, PublishedTokenizerConfig, TransformerSize
from alto_models.tokenizer.encoder import causal_latent_mask

FEATURES_PER_SLOT = 4  # image features a mask slot and side


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        layers = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", nn.GELU()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict[str, nn.Module](layers))

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x (B, T, W); hidden (T, T) bool, True where a query (row) may not look."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, attn_mask=hidden, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class EncodedMask(NamedTuple):
    """latents (B, D, L) before quantisation; stop_probabilities (B, L) of stopping after the i-th code."""

    latents: Tensor
    stop_probabilities: Tensor


class Encoder(nn.Module):
    def __init__(self, config: PublishedTokenizerConfig) -> None:
        super().__init__()
        width, patches = config.encoder.width, config.grid**2
        self.patches = patches
        self.class_embedding = nn.Parameter(torch.zeros(1, width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + patches, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.zeros(config.max_length, width))
        self.patch_embed = nn.Conv2d(3, width, PATCH_SIZE, stride=PATCH_SIZE)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = transformer(config.encoder)
        self.ln_post = nn.LayerNorm(width)
        self.conv_out = nn.Conv2d(width, config.code_width, 1)
        self.length_encoder = LengthPredictor(width)

    def forward(self, masks: Tensor, latent_tokens: Tensor) -> EncodedMask:
        """masks (B, 1, M, M), 0 or 1; latent_tokens (L, W)."""
        batch = masks.shape[0]
        patches = self.patch_embed(masks.expand(-1, 3, -1, -1)).flatten(2).transpose(1, 2)
        image = torch.cat([self.class_embedding.expand(batch, 1, -1), patches], 1) + self.positional_embedding
        latents = (latent_tokens + self.latent_token_positional_embedding).expand(batch, -1, -1)
        x = self.ln_pre(torch.cat([image, latents], dim=1))
        seen = causal_latent_mask(1 + self.patches, len(latent_tokens)).to(latent_tokens.device)
        for block in self.transformer:
            x = block(x, ~seen)
        x = self.ln_post(x)
        summary, latents = x[:, 0], x[:, 1 + self.patches :]
        # The legacy layout: (L, W) is read as (W, L) without a transpose, so each code mixes all latents.
        legacy = latents.reshape(batch, x.shape[2], -1, 1)
        return EncodedMask(
            self.conv_out(legacy).squeeze(3), self.length_encoder(summary, latents).softmax(-1)
        )


class LengthPredictor(nn.Module):
    """CLS feature as query (`fc3`), latents (`fc1`) times their gates (`fc2`) as keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, width)

    def forward(self, summary: Tensor, latents: Tensor) -> Tensor:
        """summary (B, W), latents (B, L, W) -> logits (B, L) of stopping after the i-th code."""
        keys = self.fc1(latents) * torch.sigmoid(self.fc2(latents))
        # As published: the division by 1 / sqrt(W) makes the logits larger, not smaller.
        return torch.einsum("bw,blw->bl", self.fc3(summary), keys) / summary.shape[-1] ** -0.5


class Decoder(nn.Module):
    """Bidirectional ViT over CLS, G x G mask slots with their image features, and the codes."""

    def __init__(self, config: PublishedTokenizerConfig) -> None:
        super().__init__()
        width, slots, out = config.decoder.width, config.grid**2, config.pixel_decoder_in
        image_width = config.pixel_encoder.embedding_width
        self.grid = config.grid
        self.class_embedding = nn.Parameter(torch.zeros(1, width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + slots, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.zeros(config.max_length, width))
        self.decoder_embed = nn.Linear(config.code_width, width)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = transformer(config.decoder)
        self.ln_post = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, out, 1))
        self.spatial_mapper = nn.Conv2d(image_width, image_width, FEATURES_PER_SLOT, stride=FEATURES_PER_SLOT)
        self.vae_project = nn.Sequential(nn.Linear(image_width, width))

    def project_image(self, image_embedding: Tensor) -> Tensor:
        """image_embedding (I, C, 4 G, 4 G) -> (I, G * G, W)."""
        out: Tensor = self.vae_project(self.spatial_mapper(image_embedding).flatten(2).transpose(1, 2))
        return out

    def forward(self, vectors: Tensor, image_slots: Tensor) -> Tensor:
        """vectors (B, L, D), zeros for dropped codes; image_slots (B, G * G, W) -> (B, out, G, G)."""
        batch, slots = vectors.shape[0], self.grid**2
        codes = self.decoder_embed(vectors) + self.latent_token_positional_embedding
        cls = self.class_embedding.expand(batch, 1, -1) + self.positional_embedding[:1]
        masks = self.mask_token + self.positional_embedding[1:] + image_slots
        x = self.ln_pre(torch.cat([cls, masks, codes], dim=1))
        for block in self.transformer:
            x = block(x)
        x = self.ln_post(x[:, 1 : 1 + slots])
        out: Tensor = self.ffn(x.transpose(1, 2).unflatten(2, (self.grid, self.grid)))
        return out


def transformer(size: TransformerSize) -> nn.ModuleList:
    return nn.ModuleList(Block(size.width) for _ in range(size.layers))
