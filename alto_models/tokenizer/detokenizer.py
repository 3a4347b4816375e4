"""Mask de-tokenizer: kept codes and image features become mask logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alto_models.tokenizer.config import FEATURES_PER_SLOT, TokenizerConfig
from alto_models.tokenizer.transformer import (
    Transformer,
    grid_positions,
    initialise,
    line_positions,
)

PIXEL_FEATURES = 16  # compared with each mask pixel (P)


class Detokenizer(nn.Module):
    """Bidirectional ViT over G x G mask slots and the kept codes, then a light mask head.

    Dropped codes are not attended to, so they change nothing; trailing columns that no mask of the
    batch keeps are not even computed.
    """

    slot_positions: Tensor
    code_positions: Tensor

    def __init__(self, config: TokenizerConfig, embedding_width: int) -> None:
        super().__init__()
        width = config.width
        self.grid = config.grid
        self.code_in = nn.Linear(config.code_width, width)
        self.image_in = nn.Conv2d(embedding_width, width, FEATURES_PER_SLOT, stride=FEATURES_PER_SLOT)
        self.slot = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = Transformer(width, config.heads, config.decoder_layers)
        self.head = MaskHead(config, embedding_width)
        initialise(self.code_in)
        nn.init.normal_(self.code_in.weight)  # unit-norm codes to unit-variance features
        self.register_buffer("slot_positions", grid_positions(config.grid, width), persistent=False)
        places = line_positions(torch.arange(config.max_length), width)
        self.register_buffer("code_positions", places, persistent=False)

    def forward(self, vectors: Tensor, keep: Tensor, image_embedding: Tensor) -> Tensor:
        """Mask logits (B, M, M).

        vectors (B, N, D): code vectors, N <= L.
        keep (B, N): bool, or floats 0..1 (a soft mask scales the kept codes, to pass its gradient on).
        image_embedding (I, C, 4 G, 4 G): B a multiple of I; masks b of image b // (B / I).
        """
        batch, images = vectors.shape[0], image_embedding.shape[0]
        if batch % images:
            raise ValueError(f"{batch} masks cannot be shared out evenly over {images} images")
        codes = self.code_in(vectors) + self.code_positions[: vectors.shape[1]]
        slots = self.image_in(image_embedding).flatten(2).transpose(1, 2) + self.slot_positions + self.slot
        slots = _per_mask(slots, batch)
        if keep.dtype != torch.bool:
            codes = codes * keep.unsqueeze(-1)
            keep = keep.detach() > 0.5
        visible = F.pad(keep, (self.grid**2, 0), value=True)[:, None, None, :]
        tokens = torch.cat([slots, codes], dim=1)
        return self.head(self.transformer(tokens, visible, slice(self.grid**2)), image_embedding)


class MaskHead(nn.Module):
    """Slot features and image features -> mask logits.

    Two terms: logits drawn from the joined features on the 4 G x 4 G map, and the agreement of what the
    joined features look for (a query at each place) with fine image features of each pixel there.
    """

    def __init__(self, config: TokenizerConfig, embedding_width: int) -> None:
        super().__init__()
        self.grid, self.width = config.grid, config.head_width
        self.subpixels = config.mask_size // (config.grid * FEATURES_PER_SLOT)
        self.expand = nn.Linear(config.width, config.head_width * FEATURES_PER_SLOT**2)
        self.image = nn.Conv2d(embedding_width, config.head_width, 1)
        self.image_pixels = nn.Conv2d(embedding_width, PIXEL_FEATURES * self.subpixels**2, 1)
        self.join = nn.Conv2d(config.head_width, config.head_width, 3, padding=1)
        self.query = nn.Conv2d(config.head_width, PIXEL_FEATURES, 1)
        self.logits = nn.Conv2d(config.head_width, self.subpixels**2, 3, padding=1)
        initialise(self)

    def forward(self, slots: Tensor, image_embedding: Tensor) -> Tensor:
        """slots (B, G * G, W), image_embedding (I, C, 4 G, 4 G) -> (B, M, M)."""
        batch, grid, up = slots.shape[0], self.grid, FEATURES_PER_SLOT
        coarse = self.expand(slots).view(batch, grid, grid, up, up, self.width)
        # Channels last in memory: the layout of `expand`'s output, and the faster one for convolutions.
        coarse = coarse.transpose(2, 3).reshape(batch, grid * up, grid * up, self.width).permute(0, 3, 1, 2)
        joined = F.gelu(coarse + _per_mask(self.image(image_embedding), batch))
        joined = F.gelu(self.join(joined))
        logits = self.logits(joined) + self._agreement(self.query(joined), image_embedding)
        return F.pixel_shuffle(logits, self.subpixels).squeeze(1)

    def _agreement(self, query: Tensor, image_embedding: Tensor) -> Tensor:
        """query (B, P, 4 G, 4 G) -> (B, subpixels ** 2, 4 G, 4 G): dot products with the pixels' features."""
        images = image_embedding.shape[0]
        pixels = self.image_pixels(image_embedding).unflatten(1, (PIXEL_FEATURES, -1))
        by_image = query.unflatten(0, (images, -1))
        agreement = torch.einsum("ikpyx,ipsyx->iksyx", by_image, pixels)
        return agreement.flatten(0, 1) * PIXEL_FEATURES**-0.5


def _per_mask(per_image: Tensor, batch: int) -> Tensor:
    """Repeat each image's features for its masks: (I, ...) -> (B, ...)."""
    images = per_image.shape[0]
    return per_image if images == batch else per_image.repeat_interleave(batch // images, dim=0)
