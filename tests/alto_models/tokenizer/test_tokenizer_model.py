"""The mask tokenizer's promises: causal codes, prefixes that mean the same everywhere, lengths in 1..L."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_models.checkpoint import save_checkpoint
from alto_models.tokenizer.config import ConvPixelEncoderConfig, TokenizerConfig
from alto_models.tokenizer.encoder import causal_latent_mask
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer
from data_contracts.errors import InputError
from tests.alto_models.tokenizer.tiny import TINY


@pytest.fixture(scope="module")
def model() -> MaskTokenizer:
    torch.manual_seed(0)
    return MaskTokenizer(TINY).eval()


@pytest.fixture(scope="module")
def masks() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(5, 1, 4, 4, generator=generator) > 0.5
    return torch.nn.functional.interpolate(coarse.float(), size=(32, 32))


@pytest.fixture(scope="module")
def image_embedding(model: MaskTokenizer) -> torch.Tensor:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    return model.encode_image(images).detach()


def random_codes(count: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(32, (count, 6), generator=torch.Generator().manual_seed(seed))


def test_shapes_and_ranges(model: MaskTokenizer, masks: torch.Tensor, image_embedding: torch.Tensor) -> None:
    encoding = model.encode(masks)
    assert image_embedding.shape == (1, 8, 16, 16)
    assert encoding.codes.shape == (5, 6)
    assert encoding.codes.dtype == encoding.length.dtype == torch.int64
    assert 0 <= int(encoding.codes.min()) <= int(encoding.codes.max()) < 32
    assert model.decode(encoding.codes, encoding.length, image_embedding).shape == (5, 32, 32)


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 6), seed=st.integers(0, 1000))
def test_codes_after_the_kept_length_change_nothing(length: int, seed: int) -> None:
    torch.manual_seed(0)
    model = MaskTokenizer(TINY).eval()
    embedding = model.encode_image(torch.zeros(1, 3, 64, 64))
    codes, noise = random_codes(1), random_codes(1, seed)
    changed = torch.cat([codes[:, :length], noise[:, length:]], dim=1)
    lengths = torch.tensor([length])
    expected = model.decode(codes[:, :length], lengths, embedding)
    # A longer neighbour keeps the columns in the batch, so that they are masked instead of cut.
    full = torch.tensor([length, 6])
    batched = model.decode(torch.cat([changed, random_codes(1)]), full, embedding)[:1]
    assert torch.equal(model.decode(changed, lengths, embedding), expected)
    torch.testing.assert_close(batched, expected, atol=1e-5, rtol=0)


def test_a_kept_code_matters(model: MaskTokenizer, image_embedding: torch.Tensor) -> None:
    codes = random_codes(1)
    for place in range(6):
        changed = codes.clone()
        changed[0, place] = (codes[0, place] + 1) % 32
        full = torch.tensor([6])
        difference = model.decode(changed, full, image_embedding) - model.decode(codes, full, image_embedding)
        assert difference.abs().max() > 1e-4


def test_perturbing_a_latent_leaves_codes_before_it_unchanged(masks: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = MaskTokenizer(TINY).eval()
    before = model.encode(masks)
    for place in range(6):
        with torch.no_grad():
            saved = model.encoder.latents[0, place].clone()
            model.encoder.latents[0, place] += torch.randn(16)
        after = model.encode(masks)
        with torch.no_grad():
            model.encoder.latents[0, place] = saved
        assert torch.equal(after.codes[:, :place], before.codes[:, :place])
        torch.testing.assert_close(after.latents[:, :place], before.latents[:, :place], atol=1e-5, rtol=0)
        assert (after.latents[:, place] - before.latents[:, place]).abs().max() > 1e-3


def test_code_i_comes_from_latent_i(model: MaskTokenizer, masks: torch.Tensor) -> None:
    """The gradient of code vector i reaches the encoder's output at latent i and nowhere else."""
    features = model.encoder(masks).latents.detach().requires_grad_(True)
    projected = model.project(features)
    for place in range(6):
        (gradient,) = torch.autograd.grad(projected[:, place, 0].sum(), features, retain_graph=True)
        touched = gradient.abs().sum(dim=(0, 2)) > 0
        assert touched.nonzero().flatten().tolist() == [place]


def test_causal_latent_mask_by_hand() -> None:
    expected = [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
    assert causal_latent_mask(context=2, latents=3).int().tolist() == expected


def test_masks_of_several_images_are_matched_in_order(model: MaskTokenizer) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    embedding = model.encode_image(images)
    codes, lengths = random_codes(6), torch.tensor([1, 2, 3, 4, 5, 6])
    together = model.decode(codes, lengths, embedding)
    for mask, image in itertools.chain(((m, 0) for m in range(3)), ((m, 1) for m in range(3, 6))):
        part = slice(mask, mask + 1)
        alone = model.decode(codes[part], lengths[part], embedding[image : image + 1])
        torch.testing.assert_close(together[part], alone, atol=1e-5, rtol=0)


def test_masks_that_cannot_be_shared_out(model: MaskTokenizer) -> None:
    with pytest.raises(ValueError, match="3 masks cannot be shared out evenly over 2 images"):
        model.decode(random_codes(3), torch.tensor([1, 1, 1]), model.embedding_without_image(2))


def test_certain_probabilities_decode_like_codes(model: MaskTokenizer, image_embedding: torch.Tensor) -> None:
    codes, lengths = random_codes(4), torch.tensor([2, 6, 1, 4])
    probabilities = torch.nn.functional.one_hot(codes, 32).float()
    torch.testing.assert_close(
        model.decode_probabilities(probabilities, lengths, image_embedding),
        model.decode(codes, lengths, image_embedding),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_have_codes(model: MaskTokenizer, value: float) -> None:
    encoding = model.encode(torch.full((1, 1, 32, 32), value))
    assert 1 <= int(encoding.length) <= 6
    assert torch.isfinite(encoding.latents).all()


def test_round_trip_of_a_checkpoint(model: MaskTokenizer, masks: torch.Tensor, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, model.config, model.state_dict())
    loaded = load_tokenizer(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert torch.equal(loaded.encode(masks).codes, model.encode(masks).codes)


def test_weights_of_another_size_are_refused(model: MaskTokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, model.config.model_copy(update={"codebook_size": 64}), model.state_dict())
    with pytest.raises(InputError, match="quantizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_size": 40}, "mask_size must be"),
        ({"heads": 3}, "divisible by heads"),
        ({"pixel_encoder": ConvPixelEncoderConfig(image_size=32)}, "16 times grid"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerConfig.model_validate(TINY.model_dump() | change)
