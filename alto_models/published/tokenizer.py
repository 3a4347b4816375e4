"""The published ALTo mask tokenizer (arXiv 2505.16495), as a `Tokenizer`.

Made for published weights only, so it keeps their layout and numerics; see `alto_models.tokenizer` for the
network that new training uses. Shapes: B masks, I images, L codes at full length, D code width, G patches
a side, M = 16 G mask side, C channels of the image embedding.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alto_models.checkpoint import load_config, load_strictly, load_tensors
from alto_models.published.config import PublishedTokenizerConfig
from alto_models.published.pixel_decoder import PixelDecoder
from alto_models.published.sam_encoder import sam_encoder_of_alto
from alto_models.published.titok_blocks import Decoder, Encoder
from alto_models.tokenizer.length_predictor import keep_mask
from alto_models.tokenizer.pixel_encoder import SAM_PIXEL_MEAN, SAM_PIXEL_STD
from data_contracts.errors import InputError

# Decoded together, at most: at full size, the pixel decoder needs more than 0.1 GiB for each mask.
MASKS_AT_ONCE = 16


class PublishedEncoding(NamedTuple):
    """A batch of encoded masks.

    codes (B, L) int64, full length; length (B,) int64 in 1..L, the number of codes to keep.
    stop_probabilities (B, L): of stopping after the i-th code.
    latents (B, D, L): before quantisation.
    """

    codes: Tensor
    length: Tensor
    stop_probabilities: Tensor
    latents: Tensor


class Quantizer(nn.Module):
    """L2-normalised codes, drawn from the codebook by a learned linear projection."""

    def __init__(self, codebook_size: int, code_width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, code_width)
        self.embedding_proj = nn.Linear(code_width, code_width, bias=False)

    def entries(self) -> Tensor:
        """The unit vectors of the codebook, (V, D)."""
        return F.normalize(self.embedding_proj(self.embedding.weight), dim=-1)

    def nearest(self, latents: Tensor) -> Tensor:
        """latents (B, D, L) -> codes (B, L) int64."""
        return torch.einsum("bdl,vd->blv", latents, self.entries()).argmax(-1)


class PublishedTokenizer(nn.Module):
    def __init__(self, config: PublishedTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_tokens = nn.Parameter(torch.zeros(config.max_length, config.encoder.width))
        self.encoder = Encoder(config)
        self.quantize = Quantizer(config.codebook_size, config.code_width)
        self.decoder = Decoder(config)
        self.pixel_decoder = PixelDecoder(config.pixel_decoder_in, config.pixel_decoder_width)
        self.pixel_encoder = sam_encoder_of_alto(config.pixel_encoder)

    @property
    def device(self) -> torch.device:
        return self.latent_tokens.device

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """images (I, 3, S, S) in 0..1, RGB, S = 64 G -> image embedding (I, C, 4 G, 4 G)."""
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (SAM_PIXEL_MEAN, SAM_PIXEL_STD))
        out: Tensor = self.pixel_encoder((images * 255 - mean) / std).last_hidden_state
        return out

    def embedding_without_image(self, count: int) -> Tensor:
        """Raises InputError: the published network was never trained without an image."""
        raise InputError("this tokenizer is a published one, which cannot decode without an image: give it")

    @torch.no_grad()
    def encode(self, masks: Tensor) -> PublishedEncoding:
        """masks (B, 1, M, M), 0 or 1."""
        encoded = self.encoder(masks, self.latent_tokens)
        return PublishedEncoding(
            codes=self.quantize.nearest(encoded.latents),
            length=published_length(encoded.stop_probabilities),
            stop_probabilities=encoded.stop_probabilities,
            latents=encoded.latents,
        )

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Code vectors: codes (B, N) int64 -> (B, N, D)."""
        return F.embedding(codes, self.quantize.entries())

    def decode(self, codes: Tensor, lengths: Tensor, image_embedding: Tensor) -> Tensor:
        """Mask logits (B, M, M); the sigmoid gives the published probabilities.

        codes (B, N) int64, N <= L; lengths (B,) int64 in 1..N: codes after a mask's length change nothing.
        image_embedding (I, C, 4 G, 4 G), B a multiple of I: masks b belong to image b // (B / I).
        """
        return self.decode_vectors(self.embed_codes(codes), lengths, image_embedding)

    @torch.no_grad()
    def decode_vectors(self, vectors: Tensor, lengths: Tensor, image_embedding: Tensor) -> Tensor:
        """As `decode`, from code vectors (B, N, D)."""
        (batch, given, _), images = vectors.shape, image_embedding.shape[0]
        if batch % images:
            raise ValueError(f"{batch} masks cannot be shared out evenly over {images} images")
        kept = vectors * keep_mask(lengths, given).unsqueeze(-1)
        # As published: dropped codes are attended to as zero vectors, so all places are always filled.
        kept = F.pad(kept, (0, 0, 0, self.config.max_length - given))
        slots = self.decoder.project_image(image_embedding)
        owner = torch.arange(batch, device=vectors.device) // (batch // images)
        logits = []
        for some, image in zip(kept.split(MASKS_AT_ONCE), owner.split(MASKS_AT_ONCE), strict=True):
            pixels: Tensor = self.pixel_decoder(self.decoder(some, slots[image]))
            # As published: the mean of the channels, 0..1, becomes logits of -6..6.
            logits.append((pixels.mean(dim=1) * 2 - 1) * 6)
        return torch.cat(logits)


def published_length(stop_probabilities: Tensor) -> Tensor:
    """stop_probabilities (B, L) -> number of codes kept (B,) int64 in 1..L.

    The published network rounds the expected position, counted from 0, up to the position of the last code.
    """
    positions = torch.arange(stop_probabilities.shape[1], device=stop_probabilities.device)
    last = torch.ceil((stop_probabilities * positions).sum(-1)).long()
    return last.clamp(0, stop_probabilities.shape[1] - 1) + 1


def load_published_tokenizer(folder: Path) -> PublishedTokenizer:
    """The tokenizer of a folder that `alto convert tokenizer` wrote, in evaluation mode.

    Raises InputError for a bad folder.
    """
    config = load_config(folder, PublishedTokenizerConfig)
    # Made without memory first: initial values would take longer than loading, and are overwritten.
    with torch.device("meta"):
        model = PublishedTokenizer(config)
    model.to_empty(device="cpu")
    load_strictly(model, load_tensors(folder), str(folder))
    return model.eval()
