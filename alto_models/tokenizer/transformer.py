"""Pre-norm transformer blocks and fixed positions, shared by encoder and de-tokenizer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALL = slice(None)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, rows: slice) -> Tensor:
        """What the tokens `rows` gather from all tokens of x (B, T, W): (B, R, W).

        mask: broadcast to (B, heads, T, T), bool, True where a query (row) may look.
        """
        batch, tokens, width = x.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        query = self._split(F.linear(x[:, rows], weight[:width], bias[:width]), 1)[0]
        key, value = self._split(F.linear(x, weight[width:], bias[width:]), 2)
        if mask is not None and mask.shape[-2] == tokens:
            mask = mask[..., rows, :]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor, parts: int) -> Tensor:
        """(B, T, parts * W) -> (parts, B, heads, T, W / heads)."""
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None, rows: slice = ALL) -> Tensor:
        """The tokens `rows` of x (B, T, W) after the block, (B, R, W)."""
        x = x[:, rows] + self.attention(self.norm_attention(x), mask, rows)
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class Transformer(nn.Module):
    """Pre-norm blocks and a last norm."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        initialise(self)

    def forward(self, x: Tensor, mask: Tensor | None, rows: slice = ALL) -> Tensor:
        """Features of the tokens `rows` of x (B, T, W); others are not computed where nothing needs them."""
        for block in self.blocks[:-1]:
            x = block(x, mask)
        out: Tensor = self.norm(self.blocks[-1](x, mask, rows))
        return out


def initialise(module: nn.Module) -> None:
    """Linear layers: variance-preserving normal weights, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def grid_positions(grid: int, width: int) -> Tensor:
    """Fixed sine-cosine positions of a square grid, (grid * grid, width), values in -1..1, row by row."""
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    halves = [line_positions(axis.flatten(), width // 2) for axis in (rows, columns)]
    return torch.cat(halves, dim=1)


def line_positions(places: Tensor, width: int) -> Tensor:
    """Sine-cosine positions of integer `places` (N,), (N, width)."""
    frequencies = 1.0 / 100.0 ** (torch.arange(width // 2) / (width // 2))
    angles = places[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
