"""Token length predictor and differentiable chunking (paper, sections 3.2 and 3.3).

A length is the number of codes kept, 1..L, everywhere: position index 0 stands for length 1.
"""

import torch
from torch import Tensor, nn

from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.encoder import EncodedMask
from alto_models.tokenizer.transformer import initialise
from alto_models.training.normalisation import NormaliseOverMasks


class LengthPredictor(nn.Module):
    """A query for the mask, gated latents as keys, softmax over the L stop positions.

    What differs between masks is a hundredth of these features; the rest is the same for all of them. So
    each is normalised over masks first, with running statistics that stage 1 gathers. Unlike in the paper, the
    query sees the latents beside the CLS feature, and each stop position has a key of its own that the
    latent's is added to: how much a code is worth depends on what the others leave to say.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width, tokens = config.width, 1 + config.max_length
        self.normalise = NormaliseOverMasks(tokens * width)
        # Long training leaves features with variances down to 1e-10 around means of order 1.
        self.normalise.eps = 1e-12
        self.narrow = nn.Linear(width, width // 4)
        self.query = nn.Sequential(
            nn.Linear(tokens * (width // 4), width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        self.key = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.positions = nn.Parameter(torch.randn(config.max_length, width))
        self.scale = width**-0.5
        initialise(self)

    def forward(self, encoded: EncodedMask) -> Tensor:
        """Logits (B, L) of stopping after the i-th code."""
        features = torch.cat([encoded.summary[:, None], encoded.latents], dim=1)
        features = self.normalise(features.flatten(1)).view_as(features)
        query = self.query(self.narrow(features).flatten(1))
        latents = features[:, 1:]
        keys = self.key(latents) * torch.sigmoid(self.gate(latents)) + self.positions
        return torch.einsum("bw,blw->bl", query, keys) * self.scale


def expected_length(stop_probabilities: Tensor) -> Tensor:
    """Sum of i * p_i over i = 1..L: (B, L) -> (B,) float in 1..L."""
    positions = torch.arange(1, stop_probabilities.shape[-1] + 1, device=stop_probabilities.device)
    return (stop_probabilities * positions).sum(-1)


def kept_length(stop_probabilities: Tensor) -> Tensor:
    """Expected length rounded up: (B, L) -> (B,) int64 in 1..L."""
    # A certain stop can sum to 3.0000002; that is 3 codes, not 4.
    length = torch.ceil(expected_length(stop_probabilities) - 1e-4)
    return length.long().clamp(1, stop_probabilities.shape[-1])


def soft_keep_mask(stop_probabilities: Tensor) -> Tensor:
    """1 for the kept codes, 0 for the dropped ones, (B, L), with the gradient of P(length >= i).

    One-hot stop position, straight through to the probabilities, summed from the end.
    """
    length = kept_length(stop_probabilities)
    one_hot = nn.functional.one_hot(length - 1, stop_probabilities.shape[-1]).to(stop_probabilities.dtype)
    straight_through = stop_probabilities + (one_hot - stop_probabilities).detach()
    return straight_through.flip(-1).cumsum(-1).flip(-1)


def length_loss(stop_probabilities: Tensor) -> Tensor:
    """Mean over masks of sum (i / L) p_i: the expected share of codes kept, a scalar in 1/L..1."""
    return expected_length(stop_probabilities).mean() / stop_probabilities.shape[-1]


def keep_mask(lengths: Tensor, max_length: int) -> Tensor:
    """lengths (B,) int64 -> (B, max_length) bool, True for the first `length` codes."""
    return torch.arange(max_length, device=lengths.device) < lengths[:, None]
