"""Masks of an image to codes and back, the image padded to a square as the language model sees it."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alto_models.data.shards import Picture
from alto_models.data.squares import cut_image, cut_mask, restore_whole, whole_square
from alto_models.masks import Rle, parse_counts
from alto_models.tokenizer.interface import Tokenizer
from alto_models.training.precision import to_device


def mask_grids(model: Tokenizer, masks: Sequence[Rle]) -> Tensor:
    """B masks, each of its own image's size, as and where the model takes them: (B, 1, M, M) float32, 0 or 1."""
    size = model.config.mask_size
    grids = []
    for rle in masks:
        square = whole_square(rle.height, rle.width)
        grids.append(cut_mask(parse_counts(rle.counts), rle.height, rle.width, square, size))
    return to_device(torch.from_numpy(np.stack(grids)), model.device).float().unsqueeze(1)


@torch.no_grad()
def embed_whole_image(model: Tokenizer, pictures: Sequence[Picture]) -> Tensor:
    """Image embeddings (I, C, F, F) of (H, W, 3) uint8 images of any sizes."""
    size = model.config.image_size
    squares = [cut_image(picture, whole_square(*picture.shape[:2]), size) for picture in pictures]
    return model.encode_image(to_device(torch.from_numpy(np.stack(squares)), model.device))


@torch.no_grad()
def decode_to_image(
    model: Tokenizer,
    codes: Tensor,
    lengths: Tensor,
    image_embedding: Tensor,
    sizes: Sequence[tuple[int, int]],
) -> list[NDArray[np.bool_]]:
    """Decode B masks to (H, W) bool at the original sizes [(H, W), ...] of their images.

    codes, lengths, image_embedding: as `Tokenizer.decode`.
    """
    codes, lengths = to_device(codes, model.device), to_device(lengths, model.device)
    probabilities = model.decode(codes, lengths, image_embedding).sigmoid().float().cpu().numpy()
    return [
        restore_whole(mask, height, width).astype(bool)
        for mask, (height, width) in zip(probabilities, sizes, strict=True)
    ]
