"""Decoder of MaskGIT's VQGAN (arXiv 2202.04200): a feature map becomes an image 16 times its side.

Modules carry the names of the published tensors.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from alto_models.published.config import CHANNEL_FACTORS

BLOCKS = 2  # residual blocks a level


class PixelDecoder(nn.Module):
    """`in_channels` x G x G -> 3 x 16 G x 16 G, pixel values about 0..1; `width` channels at full size."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        channels = [width * factor for factor in CHANNEL_FACTORS]
        # The input of a level is the output of the next coarser one.
        inputs = [*channels[1:], channels[-1]]
        self.conv_in = nn.Conv2d(in_channels, channels[-1], 3, padding=1)
        self.mid = nn.ModuleList(ResidualBlock(channels[-1], channels[-1]) for _ in range(BLOCKS))
        self.up = nn.ModuleList(
            Level(inputs[level], channels[level], upsample=level > 0) for level in range(len(channels))
        )
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv_in(features)
        for block in self.mid:
            x = block(x)
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class Level(nn.Module):
    """The residual blocks of one resolution, then twice the side."""

    def __init__(self, in_channels: int, channels: int, upsample: bool) -> None:
        super().__init__()
        inputs = [in_channels, *[channels] * (BLOCKS - 1)]
        self.block = nn.ModuleList(ResidualBlock(count, channels) for count in inputs)
        self.upsample_conv = nn.Conv2d(channels, channels, 3, padding=1) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if self.upsample_conv is None:
            return x
        out: Tensor = self.upsample_conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class ResidualBlock(nn.Module):
    """Where the channels change, the shortcut is drawn from the block's own output, as published."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm2 = group_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        changes = in_channels != channels
        self.nin_shortcut = nn.Conv2d(channels, channels, 1, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.silu(self.norm1(x)))
        out = self.conv2(F.silu(self.norm2(out)))
        shortcut = x if self.nin_shortcut is None else self.nin_shortcut(out)
        total: Tensor = out + shortcut
        return total


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)
