"""The profiles' full-size tokenizers, without their memory: sizes near the published ones, a step's shapes."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from alto_models.published.sam_encoder import published_sam_name
from alto_models.published.starting_weights import from_sam, from_titok
from alto_models.published.titok_blocks import Block
from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.model import MaskTokenizer
from orchestration.profiles import render_profile

ROOT = Path(__file__).resolve().parents[2]
FAKE = FakeTensorMode()  # tensors of shapes and types only


def tokenizer_config(profile: str) -> TokenizerConfig:
    parameters = yaml.safe_load(render_profile(ROOT, profile))
    return TokenizerConfig.model_validate(parameters["tokenizer_stage1"]["tokenizer"])


def millions(*modules: nn.Module) -> float:
    return sum(parameter.numel() for module in modules for parameter in module.parameters()) / 1e6


@pytest.fixture(scope="module")
def paper() -> MaskTokenizer:
    with FAKE:
        return MaskTokenizer(tokenizer_config("paper"))


def test_parameter_counts_are_near_the_published_ones(paper: MaskTokenizer) -> None:
    """Published: SAM 308.3M, encoder (with its length predictor) 306.6M, de-tokenizer 308.1M.

    What differs: our encoder has a stem of overlapping convolutions (7.2M) instead of one linear layer a patch
    (0.8M) and positions of sines and cosines instead of learned ones; our length predictor has a query of its own
    over all latents (13M) where the published one has three linear layers (3.1M); our de-tokenizer has no CLS
    token, one linear layer from image features instead of two, and its own mask head instead of a pixel
    decoder's input.
    """
    assert millions(paper.pixel_encoder) == pytest.approx(308.3, abs=0.05)
    assert millions(paper.encoder) - millions(paper.encoder.stem) == pytest.approx(
        306.6 - 3.1 - 0.8 - 0.3, abs=0.1
    )
    assert millions(paper.length_predictor) == pytest.approx(13.1, abs=0.2)
    assert millions(paper.detokenizer) == pytest.approx(308.1, rel=0.01)


def test_a_training_step_has_the_right_shapes(paper: MaskTokenizer) -> None:
    paper.train()
    with FAKE:
        embedding = paper.encode_image(torch.rand(2, 3, 1024, 1024))
        encoding = paper.encode(torch.zeros(4, 1, 256, 256))
        logits = paper.decode_kept(encoding.vectors, torch.ones(4, 32, dtype=torch.bool), embedding)
        (logits.square().mean() + encoding.quantizer_loss).backward()
    assert embedding.shape == (2, 256, 64, 64)
    assert encoding.codes.shape == (4, 32)
    assert encoding.vectors.shape == (4, 32, 12)
    assert logits.shape == (4, 256, 256)
    without = {name.split(".")[0] for name, each in paper.named_parameters() if each.grad is None}
    assert without == {"pixel_encoder", "no_image", "length_predictor"}


@pytest.mark.parametrize("profile", ["paper", "single_gpu"])
def test_published_starting_weights_fit(profile: str) -> None:
    """SAM and TiTok of the profile's sizes give exactly the tensors and sizes that its tokenizer has."""
    config = tokenizer_config(profile)
    with torch.device("meta"):
        network = MaskTokenizer(config)
        titok = {
            f"{part}.transformer.{layer}.{name}": tensor
            for part, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers))
            for layer in range(layers)
            for name, tensor in Block(config.width).state_dict().items()
        }
        for part in ("encoder", "decoder"):
            titok[f"{part}.class_embedding"] = torch.empty(1, config.width)
            titok |= {f"{part}.ln_post.{kind}": torch.empty(config.width) for kind in ("weight", "bias")}
    sam = {
        f"image_encoder.{published_sam_name(name.removeprefix('sam.'))}": tensor
        for name, tensor in network.pixel_encoder.state_dict().items()
    }
    needed = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for weights in (from_sam(sam, "sam"), from_titok(titok, "titok")):
        for name, tensor in weights.tensors.items():
            assert needed.pop(name) == tensor.shape
        stated = weights.sizes.model_dump(exclude_none=True)
        assert stated.items() <= config.model_dump().items()
    assert not [name for name in needed if ".transformer." in name or name.startswith("pixel_encoder.")]
