"""Every prefix of a mask's codes decoded in one batch, and the oracle length that gives."""

import torch
from torch import Tensor

from alto_models.metrics import batch_iou
from alto_models.tokenizer.interface import Tokenizer


@torch.no_grad()
def decode_prefixes(
    model: Tokenizer, codes: Tensor, image_embedding: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """Mask logits (B, N, M, M) of the first lengths[n] codes of each mask.

    codes (B, L) int64; lengths (N,) int64 in 1..L, default all of 1..L.
    image_embedding (I, C, F, F), B a multiple of I, as in `Tokenizer.decode`.
    """
    batch, longest = codes.shape
    if lengths is None:
        lengths = torch.arange(1, longest + 1, device=codes.device)
    repeated = codes.repeat_interleave(len(lengths), dim=0)
    vectors = model.embed_codes(repeated)
    logits = model.decode_vectors(vectors, lengths.repeat(batch), image_embedding)
    return logits.unflatten(0, (batch, len(lengths)))


def prefix_iou(
    model: Tokenizer, codes: Tensor, masks: Tensor, image_embedding: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """IoU (B, N) of each prefix with masks (B, 1, M, M); the other arguments as in `decode_prefixes`."""
    logits = decode_prefixes(model, codes, image_embedding, lengths)
    return batch_iou(logits > 0, masks > 0.5)


def oracle_length(ious: Tensor, tolerance: float) -> Tensor:
    """Shortest prefix whose IoU is within `tolerance` of the full one's: (B, L) -> (B,) int64 in 1..L."""
    good = ious >= ious[:, -1:] - tolerance
    return good.int().argmax(dim=1) + 1


def spread_lengths(longest: int, count: int) -> Tensor:
    """At most `count` different lengths from 1 to `longest`, spread geometrically, (N,) int64."""
    return torch.unique(torch.logspace(0, 1, count, base=longest).round().long())
