"""A mask tokenizer small enough for tests: 32 px masks, 4 x 4 slots, 6 codes of 32 entries."""

from alto_models.tokenizer.config import ConvPixelEncoderConfig, TokenizerConfig

TINY = TokenizerConfig(
    mask_size=32,
    grid=4,
    max_length=6,
    width=16,
    heads=2,
    encoder_layers=2,
    decoder_layers=2,
    codebook_size=32,
    code_width=4,
    head_width=8,
    pixel_encoder=ConvPixelEncoderConfig(image_size=64, width=8),
)
