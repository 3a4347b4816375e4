"""SAM as pixel encoder: what it computes, and that training leaves it alone."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from alto_models.checkpoint import save_checkpoint
from alto_models.published.sam_encoder import published_sam_name
from alto_models.tokenizer.config import SamPixelEncoderConfig, TokenizerConfig
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer
from alto_models.tokenizer.pixel_encoder import SamPixelEncoder
from tests.alto_models.tokenizer.tiny import TINY

# 8 patches a side in windows of 3: the last ones hang over the edge.
SAM = SamPixelEncoderConfig(
    width=16, layers=2, heads=2, grid=8, window=3, global_layers=(1,), embedding_width=12
)
TINY_WITH_SAM = TokenizerConfig.model_validate(TINY.model_dump() | {"grid": 2, "pixel_encoder": SAM})


@pytest.fixture(scope="module")
def encoder() -> SamPixelEncoder:
    """With no weight left at zero, so that each of them shows."""
    generator = torch.Generator().manual_seed(0)
    encoder = SamPixelEncoder(SAM)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return encoder


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))


def test_it_computes_what_sam_is_described_to_compute(encoder: SamPixelEncoder, images: Tensor) -> None:
    published = {
        published_sam_name(name.removeprefix("sam.")): tensor for name, tensor in encoder.state_dict().items()
    }
    embedding = encoder(images)
    assert embedding.shape == (2, 12, 8, 8)
    torch.testing.assert_close(embedding, described_sam(published, images), atol=1e-4, rtol=1e-4)


def described_sam(tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """SAM's image encoder by published names: a ViT with decomposed relative positions (arXiv 2304.02643;
    2112.01526, appendix), written out plainly as the reference."""
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    x = F.conv2d((images * 255 - mean) / std, *pair(tensors, "patch_embed.proj"), stride=16)
    x = x.permute(0, 2, 3, 1) + tensors["pos_embed"]
    for layer in range(SAM.layers):
        part = f"blocks.{layer}."
        window = SAM.grid if layer in SAM.global_layers else SAM.window
        normed = F.layer_norm(x, (SAM.width,), *pair(tensors, part + "norm1"), 1e-6)
        overhang = -SAM.grid % window
        padded = F.pad(normed, (0, 0, 0, overhang, 0, overhang))
        attended = torch.zeros_like(padded)
        for top in range(0, padded.shape[1], window):
            for left in range(0, padded.shape[2], window):
                cut = (slice(None), slice(top, top + window), slice(left, left + window))
                attended[cut] = attention(tensors, part + "attn.", padded[cut])
        x = x + attended[:, : SAM.grid, : SAM.grid]
        hidden = F.layer_norm(x, (SAM.width,), *pair(tensors, part + "norm2"), 1e-6)
        hidden = F.gelu(F.linear(hidden, *pair(tensors, part + "mlp.lin1")))
        x = x + F.linear(hidden, *pair(tensors, part + "mlp.lin2"))
    x = F.conv2d(x.permute(0, 3, 1, 2), tensors["neck.0.weight"])
    x = channel_norm(x, *pair(tensors, "neck.1"))
    return channel_norm(F.conv2d(x, tensors["neck.2.weight"], padding=1), *pair(tensors, "neck.3"))


def attention(tensors: Mapping[str, Tensor], part: str, x: Tensor) -> Tensor:
    """Of each place of x (B, S, S, W) to all, plus query . (row offset + column offset)."""
    side, width = x.shape[1], SAM.width // SAM.heads
    offsets = torch.arange(side)[:, None] - torch.arange(side) + side - 1
    rows, columns = (tensors[f"{part}rel_pos_{axis}"][offsets] for axis in "hw")
    query, key, value = F.linear(x, *pair(tensors, part + "qkv")).chunk(3, dim=-1)
    heads = []
    for head in range(SAM.heads):
        q, k, v = (each[..., head * width : (head + 1) * width] for each in (query, key, value))
        scores = torch.einsum("byxc,bvuc->byxvu", q, k) * width**-0.5
        scores = scores + torch.einsum("byxc,yvc->byxv", q, rows)[..., None]
        scores = scores + torch.einsum("byxc,xuc->byxu", q, columns)[..., None, :]
        weights = scores.flatten(3).softmax(-1).view_as(scores)
        heads.append(torch.einsum("byxvu,bvuc->byxc", weights, v))
    return F.linear(torch.cat(heads, dim=-1), *pair(tensors, part + "proj"))


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    normed = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    return normed * weight[:, None, None] + bias[:, None, None]


def pair(tensors: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def test_training_leaves_it_frozen_and_in_evaluation_mode(images: Tensor) -> None:
    model = MaskTokenizer(TINY_WITH_SAM).train()
    assert not any(module.training for module in model.pixel_encoder.modules())
    assert model.encoder.training
    before = {name: tensor.clone() for name, tensor in model.pixel_encoder.state_dict().items()}
    encoding = model.encode(torch.rand(4, 1, 32, 32).round())
    embedding = model.encode_image(images)
    assert not embedding.requires_grad  # no activations are kept for it
    keep = torch.ones(4, 6, dtype=torch.bool)
    model.decode_kept(encoding.vectors, keep, embedding).square().mean().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.optim.SGD(trained, lr=1.0).step()
    for name, tensor in model.pixel_encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert model.detokenizer.image_in.weight.grad is not None


def test_in_bfloat16_it_stays_close(encoder: SamPixelEncoder, images: Tensor) -> None:
    exact = encoder(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = encoder(images).float()
    assert F.cosine_similarity(rounded.flatten(), exact.flatten(), dim=0) > 0.99


def test_its_weights_are_part_of_the_checkpoint(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MaskTokenizer(TINY_WITH_SAM).eval()
    save_checkpoint(tmp_path, TINY_WITH_SAM, model.state_dict())
    torch.manual_seed(1)
    assert torch.equal(load_tokenizer(tmp_path).encode_image(images), model.encode_image(images))


def test_its_grid_must_fit_the_tokenizers() -> None:
    with pytest.raises(ValidationError, match=r"pixel_encoder\.grid must be 4 times grid"):
        TokenizerConfig.model_validate(TINY_WITH_SAM.model_dump() | {"grid": 4})
