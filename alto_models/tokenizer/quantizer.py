"""Vector quantiser: L2-normalised latents to the nearest entry of an L2-normalised codebook."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alto_models.tokenizer.config import TokenizerConfig
from alto_models.training.normalisation import NormaliseOverMasks
from alto_models.training.precision import at_least_float32, to_device

COMMITMENT_WEIGHT = 0.25
USAGE_DECAY = 0.99
DEAD_BELOW = 0.03  # of an entry's fair share of picks


class Quantized(NamedTuple):
    """codes (B, L) int64; vectors (B, L, D), with the gradient passed straight through to the latents;
    loss: scalar, codebook loss + commitment loss."""

    codes: Tensor
    vectors: Tensor
    loss: Tensor


class CodeProjection(nn.Module):
    """Encoder latents (B, L, W) to unit vectors (B, L, D), each position and dimension normalised over masks.

    Without the normalisation some positions come to give every mask the same latent while the quantiser
    is still off, and their codes then say nothing.
    In evaluation mode the running statistics of training are used.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.width, config.code_width)
        self.normalise = NormaliseOverMasks(config.max_length * config.code_width)

    def forward(self, latents: Tensor) -> Tensor:
        projected = self.linear(latents)
        normalised = self.normalise(projected.flatten(1)).view_as(projected)
        return F.normalize(normalised, dim=-1)


class VectorQuantizer(nn.Module):
    """Codebook of V unit vectors of D dimensions; distances in float32 at least, whatever the rest runs in."""

    usage: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.codebook = nn.Parameter(
            F.normalize(torch.randn(config.codebook_size, config.code_width), dim=-1)
        )
        # Running number of picks an entry gets in a batch of as many latents as there are entries.
        self.register_buffer("usage", torch.ones(config.codebook_size))

    def forward(self, latents: Tensor) -> Quantized:
        """latents (B, L, D), unit vectors."""
        entries = self.entries()
        codes = nearest_codes(latents, entries)
        picked = F.embedding(codes, entries)
        latents = at_least_float32(latents)
        loss = F.mse_loss(picked, latents.detach()) + COMMITMENT_WEIGHT * F.mse_loss(latents, picked.detach())
        vectors = latents + (picked - latents).detach()
        return Quantized(codes=codes, vectors=vectors, loss=loss * latents.shape[-1])

    def entries(self) -> Tensor:
        """The V unit vectors, (V, D) float32."""
        return F.normalize(at_least_float32(self.codebook), dim=-1)

    def embed(self, codes: Tensor) -> Tensor:
        """codes (B, L) int64 -> their unit vectors (B, L, D)."""
        return F.embedding(codes, self.entries())

    @torch.no_grad()
    def fit(self, latents: Tensor, generator: torch.Generator, rounds: int = 10) -> None:
        """Set the codebook to spherical k-means centres of `latents` (N, D); N at least V."""
        size = self.codebook.shape[0]
        centres = latents[_sample(latents.shape[0], size, generator)]
        for _ in range(rounds):
            sums = torch.zeros_like(centres).index_add_(0, nearest_codes(latents, centres), latents)
            empty = sums.norm(dim=-1) < 1e-6
            sums[empty] = latents[_sample(latents.shape[0], int(empty.sum()), generator)]
            centres = F.normalize(sums, dim=-1)
        self.codebook.copy_(centres)
        self.usage.fill_(1.0)

    @torch.no_grad()
    def track_usage(self, codes: Tensor) -> None:
        """Count the picks of a batch's `codes` (any shape) into the running usage."""
        size = self.usage.shape[0]
        # Summed like this, unlike by `bincount`, without waiting for the device.
        share = self.usage.new_full((codes.numel(),), size / codes.numel())
        picks = torch.zeros_like(self.usage).index_add_(0, codes.flatten(), share)
        self.usage.lerp_(picks, 1 - USAGE_DECAY)

    def used_share(self) -> Tensor:
        """Share of entries that are picked at all, at present: scalar in 0..1."""
        return (self.usage >= DEAD_BELOW).float().mean()

    @torch.no_grad()
    def revive_dead_codes(self, latents: Tensor, generator: torch.Generator) -> None:
        """Move entries that are hardly used onto random latents of the batch.

        latents (N, D) unit vectors; at most N entries move.
        """
        dead = self.usage < DEAD_BELOW
        moved = dead.argsort(descending=True, stable=True)[: latents.shape[0]]  # the dead ones first
        chosen = latents[to_device(_sample(latents.shape[0], len(moved), generator), latents.device)]
        self.codebook[moved] = torch.where(
            dead[moved, None], chosen.to(self.codebook.dtype), self.codebook[moved]
        )
        self.usage[moved] = torch.where(dead[moved], 1.0, self.usage[moved])


def nearest_codes(latents: Tensor, entries: Tensor) -> Tensor:
    """Index of the entry (V, D) with the largest cosine to each unit vector (..., D) -> (...) int64."""
    with torch.autocast(latents.device.type, enabled=False):
        return (at_least_float32(latents) @ at_least_float32(entries).T).argmax(dim=-1)


def _sample(population: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` indices below `population`, each at most once while they last."""
    if count > population:
        return torch.randint(population, (count,), generator=generator)
    return torch.randperm(population, generator=generator)[:count]
