"""Sizes at which ours and the published network are compared: the same widths, layers, masks and images."""

from dataclasses import dataclass

from alto_models.published.config import PublishedTokenizerConfig, TransformerSize
from alto_models.tokenizer.config import SamPixelEncoderConfig, SamSize, TokenizerConfig

MASKS_PER_STEP = 64  # published batch
MASKS_PER_IMAGE = 8  # K of ours; the published sampling is 1


@dataclass(frozen=True, kw_only=True)
class Size:
    """One pair of networks.

    published: None where the published classes cannot be so small; then the published mask head is put on ours.
    masks_per_pass: masks of a forward and backward pass; a step has MASKS_PER_STEP.
    """

    name: str
    ours: TokenizerConfig
    published: PublishedTokenizerConfig | None
    masks_per_pass: int


def sam_size(
    name: str,
    *,
    grid: int,
    max_length: int,
    width: int,
    layers: int,
    code_width: int,
    codebook_size: int,
    head_width: int,
    pixel_decoder_width: int,
    sam: SamSize,
    masks_per_pass: int,
) -> Size:
    """Both networks with a SAM pixel encoder; masks of 16 pixels a patch, as published."""
    transformer = TransformerSize(width=width, layers=layers)
    published = PublishedTokenizerConfig(
        encoder=transformer,
        decoder=transformer,
        grid=grid,
        max_length=max_length,
        codebook_size=codebook_size,
        code_width=code_width,
        pixel_decoder_in=width,
        pixel_decoder_width=pixel_decoder_width,
        pixel_encoder=sam,
    )
    ours = TokenizerConfig(
        mask_size=16 * grid,
        grid=grid,
        max_length=max_length,
        width=width,
        heads=width // 64,
        encoder_layers=layers,
        decoder_layers=layers,
        codebook_size=codebook_size,
        code_width=code_width,
        head_width=head_width,
        pixel_encoder=SamPixelEncoderConfig(**sam.model_dump()),
    )
    return Size(name=name, ours=ours, published=published, masks_per_pass=masks_per_pass)


# The profile `paper`: ViT-L encoder and de-tokenizer, SAM ViT-L at 1024 pixels. Only counted, never run here.
FULL = sam_size(
    "published size",
    grid=16,
    max_length=32,
    width=1024,
    layers=24,
    code_width=12,
    codebook_size=1024,
    head_width=128,
    pixel_decoder_width=128,
    sam=SamSize(
        width=1024,
        layers=24,
        heads=16,
        grid=64,
        window=14,
        global_layers=(5, 11, 17, 23),
        embedding_width=256,
    ),
    masks_per_pass=64,
)

# Half the side of masks and images, half the layers: FLOPs of the parts in the published proportions.
REDUCED = sam_size(
    "reduced",
    grid=8,
    max_length=8,
    width=384,
    layers=12,
    code_width=12,
    codebook_size=1024,
    head_width=48,
    pixel_decoder_width=32,
    sam=SamSize(width=384, layers=12, heads=6, grid=32, window=7, global_layers=(5, 11), embedding_width=96),
    masks_per_pass=8,
)

# The network of the profile `small`, which is TokenizerConfig's default.
SMALL = Size(name="small", ours=TokenizerConfig(), published=None, masks_per_pass=64)
