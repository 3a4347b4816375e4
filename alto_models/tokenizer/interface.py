"""What a mask tokenizer must offer to be used, evaluated and registered, whoever made it.

`MaskTokenizer` and the published network both do. Shapes: B masks, I images, L codes at full length, D code
width, M mask side, S image side, F side and C channels of an image embedding.
"""

from typing import Protocol, Self

import torch
from torch import Tensor


class TokenizerSizes(Protocol):
    """mask_size (M), image_size (S): in pixels. max_length (L), codebook_size: in codes."""

    @property
    def mask_size(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def codebook_size(self) -> int: ...


class EncodedMasks(Protocol):
    """codes (B, L) int64, full length; length (B,) int64 in 1..L, the number of codes to keep."""

    @property
    def codes(self) -> Tensor: ...
    @property
    def length(self) -> Tensor: ...


class Tokenizer(Protocol):
    @property
    def config(self) -> TokenizerSizes: ...
    @property
    def device(self) -> torch.device: ...

    def eval(self) -> Self:
        """Switch to evaluation mode."""

    def to(self, device: torch.device) -> Self: ...

    def encode_image(self, images: Tensor) -> Tensor:
        """images (I, 3, S, S) in 0..1, RGB -> image embedding (I, C, F, F)."""

    def embedding_without_image(self, count: int) -> Tensor:
        """Stands in for `encode_image` of `count` images. Raises InputError where there is no stand-in."""

    def encode(self, masks: Tensor) -> EncodedMasks:
        """masks (B, 1, M, M), 0 or 1."""

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Code vectors: codes (B, N) int64, N <= L -> (B, N, D)."""

    def decode_vectors(self, vectors: Tensor, lengths: Tensor, image_embedding: Tensor) -> Tensor:
        """As `decode`, from code vectors (B, N, D)."""

    def decode(self, codes: Tensor, lengths: Tensor, image_embedding: Tensor) -> Tensor:
        """Mask logits (B, M, M).

        codes (B, N) int64, N <= L; lengths (B,) int64 in 1..N: codes after a mask's length change nothing.
        image_embedding (I, C, F, F), B a multiple of I: masks b belong to image b // (B / I).
        """
