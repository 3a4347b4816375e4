"""The mask tokenizer as a whole: `encode_image`, `encode`, `decode`.

Shapes: B masks, I images, L codes at full length, V codebook entries, D code width, M mask side.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alto_models.checkpoint import load_config, load_strictly, load_tensors
from alto_models.tokenizer.config import FEATURES_PER_SLOT, TokenizerConfig
from alto_models.tokenizer.detokenizer import Detokenizer
from alto_models.tokenizer.encoder import MaskEncoder
from alto_models.tokenizer.length_predictor import (
    LengthPredictor,
    keep_mask,
    kept_length,
)
from alto_models.tokenizer.pixel_encoder import build_pixel_encoder
from alto_models.tokenizer.quantizer import CodeProjection, VectorQuantizer


class Encoding(NamedTuple):
    """A batch of encoded masks.

    codes (B, L) int64, full length; length (B,) int64 in 1..L, the number of codes to keep.
    stop_logits (B, L): of stopping after the i-th code.
    features (B, L, W): of the encoder, which the latents are made of.
    latents (B, L, D): unit vectors before quantisation.
    vectors (B, L, D): the codes' vectors, gradients passed straight through to `latents`.
    quantizer_loss: scalar.
    """

    codes: Tensor
    length: Tensor
    stop_logits: Tensor
    features: Tensor
    latents: Tensor
    vectors: Tensor
    quantizer_loss: Tensor

    @property
    def stop_probabilities(self) -> Tensor:
        """(B, L), of stopping after the i-th code."""
        return self.stop_logits.softmax(-1)


class MaskTokenizer(nn.Module):
    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.pixel_encoder = build_pixel_encoder(config.pixel_encoder)
        # What stands for the image where there is none; learned, as images are withheld at times.
        self.no_image = nn.Parameter(torch.zeros(1, self.pixel_encoder.embedding_width, 1, 1))
        self.encoder = MaskEncoder(config)
        self.project = CodeProjection(config)
        self.quantizer = VectorQuantizer(config)
        self.length_predictor = LengthPredictor(config)
        self.detokenizer = Detokenizer(config, self.pixel_encoder.embedding_width)

    @property
    def device(self) -> torch.device:
        return self.no_image.device

    def encode_image(self, images: Tensor) -> Tensor:
        """images (I, 3, S, S) in 0..1 -> image embedding (I, C, 4 G, 4 G)."""
        out: Tensor = self.pixel_encoder(images)
        return out

    def embedding_without_image(self, count: int) -> Tensor:
        """Stands in for `encode_image` of `count` images: (count, C, 4 G, 4 G)."""
        side = FEATURES_PER_SLOT * self.config.grid
        return self.no_image.expand(count, -1, side, side)

    def encode(self, masks: Tensor) -> Encoding:
        """masks (B, 1, M, M), 0 or 1."""
        encoded = self.encoder(masks)
        latents = self.project(encoded.latents)
        quantized = self.quantizer(latents)
        stop_logits = self.length_predictor(encoded)
        return Encoding(
            codes=quantized.codes,
            length=kept_length(stop_logits.softmax(-1)),
            stop_logits=stop_logits,
            features=encoded.latents,
            latents=latents,
            vectors=quantized.vectors,
            quantizer_loss=quantized.loss,
        )

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Code vectors: codes (B, N) int64 -> (B, N, D)."""
        return self.quantizer.embed(codes)

    def decode(self, codes: Tensor, lengths: Tensor, image_embedding: Tensor) -> Tensor:
        """Mask logits (B, M, M).

        codes (B, N) int64, N <= L; lengths (B,) int64 in 1..N: codes after a mask's length change nothing.
        image_embedding (I, C, 4 G, 4 G), B a multiple of I: masks b belong to image b // (B / I).
        """
        longest = int(lengths.max())
        return self.decode_vectors(self.embed_codes(codes[:, :longest]), lengths, image_embedding)

    def decode_vectors(self, vectors: Tensor, lengths: Tensor, image_embedding: Tensor) -> Tensor:
        """As `decode`, from code vectors (B, N, D)."""
        return self.decode_kept(vectors, keep_mask(lengths, vectors.shape[1]), image_embedding)

    def decode_kept(self, vectors: Tensor, keep: Tensor, image_embedding: Tensor) -> Tensor:
        """As `decode_vectors`, with a keep mask (B, N), bool or soft (see `Detokenizer`)."""
        out: Tensor = self.detokenizer(vectors, keep, image_embedding)
        return out

    def decode_probabilities(self, probabilities: Tensor, lengths: Tensor, image_embedding: Tensor) -> Tensor:
        """As `decode`, from probabilities over the codebook (B, N, V); differentiable."""
        return self.decode_vectors(probabilities @ self.quantizer.entries(), lengths, image_embedding)


def load_tokenizer(folder: Path) -> MaskTokenizer:
    """The tokenizer of a checkpoint folder, in evaluation mode. Raises InputError for a bad folder."""
    model = MaskTokenizer(load_config(folder, TokenizerConfig))
    load_strictly(model, load_tensors(folder), str(folder))
    return model.eval()
