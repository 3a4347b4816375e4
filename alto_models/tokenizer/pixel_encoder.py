"""Pixel encoder: the image crop becomes features for the de-tokenizer, once for all its masks."""

from torch import Tensor, nn

from alto_models.tokenizer.config import ConvPixelEncoderConfig
from alto_models.tokenizer.transformer import initialise


class ConvPixelEncoder(nn.Module):
    """Small convolution net of stride 4.

    images (B, 3, S, S) in 0..1 -> (B, width, S / 4, S / 4); S / 4 is 4 features a mask slot and side.
    """

    def __init__(self, config: ConvPixelEncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.embedding_width = width
        self.down = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        )
        self.refine = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.down(images * 4 - 2)
        out: Tensor = features + self.refine(features)
        return out
