"""Sizes of a published ALTo mask tokenizer, all of which can be read off its weights."""

from typing import Literal

from pydantic import Field

from alto_models.tokenizer.config import SamSize, SizeConfig

PATCH_SIZE = 16  # pixels a side, of the mask encoder
HEAD_WIDTH = 64  # of the mask encoder and the de-tokenizer, in every size
CHANNEL_FACTORS = (1, 1, 2, 2, 4)  # pixel decoder, finest level first; each level but one doubles the size


class TransformerSize(SizeConfig):
    width: int = Field(gt=0, multiple_of=HEAD_WIDTH)
    layers: int = Field(gt=0)


class PublishedTokenizerConfig(SizeConfig):
    """One published mask tokenizer.

    grid: mask patches along one side (16 at 256 px).
    max_length: codes of a mask at full length.
    codebook_size, code_width: entries and dimensions of the codebook.
    pixel_decoder_in: channels of the de-tokenizer's output, which the pixel decoder reads.
    pixel_decoder_width: channels of the pixel decoder at full resolution.
    """

    kind: Literal["published_alto"] = "published_alto"
    encoder: TransformerSize
    decoder: TransformerSize
    grid: int = Field(gt=0)
    max_length: int = Field(gt=0)
    codebook_size: int = Field(gt=1)
    code_width: int = Field(gt=0)
    pixel_decoder_in: int = Field(gt=0)
    pixel_decoder_width: int = Field(gt=0, multiple_of=32)
    pixel_encoder: SamSize

    @property
    def mask_size(self) -> int:
        """Side of the square mask in pixels."""
        return PATCH_SIZE * self.grid

    @property
    def image_size(self) -> int:
        """Side of the square image in pixels."""
        return self.pixel_encoder.image_size
