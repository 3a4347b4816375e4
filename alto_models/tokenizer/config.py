"""Sizes of the mask tokenizer. Nothing about training: see the stages' own configs."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Image features per mask slot and side: SAM's 64 x 64 embedding against 16 x 16 mask slots.
FEATURES_PER_SLOT = 4
SAM_PATCH_SIZE = 16  # pixels a side, in every size of SAM


class SizeConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConvPixelEncoderConfig(SizeConfig):
    """A small convolution net, trained with the tokenizer.

    image_size: side of the square input in pixels; 16 times the tokenizer's grid.
    """

    kind: Literal["conv"] = Field(default="conv", description="a small convolution net")
    image_size: int = Field(default=128, gt=0)
    width: int = Field(default=48, gt=0, description="channels")


class SamSize(SizeConfig):
    """SAM's image encoder.

    width, layers, heads: of the ViT.
    grid: patches along one side of the square image (64 at 1024 px).
    window: side of the attention windows in patches.
    global_layers: layers, counted from 0, that attend to the whole image.
    embedding_width: channels of the image embedding.
    """

    width: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    grid: int = Field(gt=0)
    window: int = Field(gt=0)
    global_layers: tuple[int, ...]
    embedding_width: int = Field(gt=0)

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return SAM_PATCH_SIZE * self.grid


class SamPixelEncoderConfig(SamSize):
    """SAM's image encoder, frozen; its grid is 4 times the tokenizer's."""

    kind: Literal["sam"] = Field(default="sam", description="SAM's image encoder, frozen")


PixelEncoderConfig = Annotated[ConvPixelEncoderConfig | SamPixelEncoderConfig, Field(discriminator="kind")]


class TokenizerConfig(SizeConfig):
    """One mask tokenizer.

    mask_size: side of the square mask in pixels (M).
    grid: mask patches, and mask slots of the de-tokenizer, along one side (G).
    max_length: codes of a mask at full length (L).
    width, heads, encoder_layers, decoder_layers: of both transformers.
    codebook_size, code_width: entries (V) and dimensions (D) of the codebook.
    head_width: channels of the mask head at 4 G x 4 G.
    """

    mask_size: int = Field(default=64, gt=0)
    grid: int = Field(default=8, gt=0)
    max_length: int = Field(default=16, gt=0)
    width: int = Field(default=96, gt=0)
    heads: int = Field(default=3, gt=0)
    encoder_layers: int = Field(default=2, gt=0)
    decoder_layers: int = Field(default=2, gt=0)
    codebook_size: int = Field(default=256, gt=1)
    code_width: int = Field(default=8, gt=1)
    head_width: int = Field(default=32, gt=0)
    pixel_encoder: PixelEncoderConfig = Field(
        default=ConvPixelEncoderConfig(), description="what encodes the image, `conv` or `sam`"
    )

    @property
    def image_size(self) -> int:
        """Side of the square image in pixels."""
        return self.pixel_encoder.image_size

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.mask_size != 8 * self.grid and self.mask_size != 16 * self.grid:
            raise ValueError("mask_size must be 8 or 16 times grid")
        if self.width % self.heads or self.width % 4:
            raise ValueError("width must be divisible by heads and by 4")
        if self.pixel_encoder.kind == "conv" and self.pixel_encoder.image_size != 16 * self.grid:
            raise ValueError("pixel_encoder.image_size must be 16 times grid")
        if self.pixel_encoder.kind == "sam" and self.pixel_encoder.grid != FEATURES_PER_SLOT * self.grid:
            raise ValueError("pixel_encoder.grid must be 4 times grid")
        return self
