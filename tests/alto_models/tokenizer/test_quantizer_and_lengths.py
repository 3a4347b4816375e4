"""Vector quantiser, length predictor, losses and oracle lengths against independent computations."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve
from scipy.special import expit

from alto_models.data.crops import CropBatch
from alto_models.tokenizer.encoder import EncodedMask
from alto_models.tokenizer.length_predictor import (
    LengthPredictor,
    expected_length,
    keep_mask,
    kept_length,
    length_loss,
    soft_keep_mask,
)
from alto_models.tokenizer.losses import bce_loss, dice_loss, edge_loss
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.prefixes import (
    decode_prefixes,
    oracle_length,
    prefix_iou,
    spread_lengths,
)
from alto_models.tokenizer.quantizer import VectorQuantizer
from alto_models.tokenizer.stage1 import BatchTensors, draw_lengths
from alto_models.tokenizer.stage1_5 import PredictorSettings, PredictorTraining, interpolate
from tests.alto_models.tokenizer.tiny import TINY

PROBABILITIES = st.lists(st.floats(-8, 8), min_size=6, max_size=6).map(
    lambda logits: torch.tensor([logits]).softmax(-1)
)


def quantizer() -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(TINY)


def unit_vectors(count: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_nearest_code_and_losses_against_numpy() -> None:
    part = quantizer()
    latents = unit_vectors(20).view(4, 5, 4)
    result = part(latents)
    entries = part.codebook.detach().numpy().astype(np.float64)
    entries /= np.linalg.norm(entries, axis=1, keepdims=True)
    flat = latents.reshape(-1, 4).numpy().astype(np.float64)
    squared = ((flat[:, None] - entries[None]) ** 2).sum(-1)
    assert result.codes.flatten().tolist() == squared.argmin(1).tolist()
    assert result.loss.item() == pytest.approx(1.25 * squared.min(1).mean(), rel=1e-5)
    np.testing.assert_allclose(result.vectors.reshape(-1, 4).detach(), entries[squared.argmin(1)], atol=1e-6)


def test_gradient_passes_straight_through_the_quantiser() -> None:
    latents = unit_vectors(6).view(2, 3, 4).requires_grad_(True)
    weights = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5))
    (quantizer()(latents).vectors * weights).sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, weights)


def test_dead_codes_come_back_to_life_where_latents_are() -> None:
    part = quantizer()
    generator = torch.Generator().manual_seed(0)
    # All latents in one small region: most entries are never picked.
    latents = F.normalize(torch.tensor([1.0, 0, 0, 0]) + 0.1 * unit_vectors(200), dim=-1)
    for _ in range(500):
        part.track_usage(part(latents.unsqueeze(0)).codes)
    before = float(part.used_share())
    part.revive_dead_codes(latents, generator)
    part.usage.zero_()
    for _ in range(500):
        part.track_usage(part(latents.unsqueeze(0)).codes)
    assert before < 0.6
    assert float(part.used_share()) > 0.9


def test_fit_finds_clusters() -> None:
    part = quantizer()
    centres = unit_vectors(32, seed=7)
    latents = F.normalize(centres.repeat(20, 1) + 0.01 * torch.randn(640, 4), dim=-1)
    part.fit(latents, torch.Generator().manual_seed(0))
    nearest = (latents @ part.entries().T).amax(dim=1)
    assert nearest.mean().item() > 0.97


def test_what_all_masks_share_does_not_drown_what_they_differ_in() -> None:
    torch.manual_seed(0)
    part = LengthPredictor(TINY)
    summary, latents = torch.randn(16, TINY.width), torch.randn(16, TINY.max_length, TINY.width)
    plain = part(EncodedMask(summary, latents))
    shared = part(EncodedMask(10 + 0.1 * summary, 0.1 * latents - 10))
    torch.testing.assert_close(shared, plain, atol=0.02, rtol=0)
    assert plain.std(0).min() > 0.1


@settings(max_examples=50, deadline=None)
@given(PROBABILITIES)
def test_length_is_the_expectation_rounded_up(probabilities: torch.Tensor) -> None:
    expectation = sum((i + 1) * p for i, p in enumerate(probabilities[0].double().tolist()))
    length = int(kept_length(probabilities))
    assert 1 <= length <= 6
    assert length - 1 - 1e-3 <= expectation <= length + 1e-3
    assert float(expected_length(probabilities)) == pytest.approx(expectation, rel=1e-4)
    assert float(length_loss(probabilities)) == pytest.approx(expectation / 6, rel=1e-4)


@pytest.mark.parametrize("stop", range(6))
def test_a_certain_stop_at_position_i_keeps_i_plus_1_codes(stop: int) -> None:
    certain = F.one_hot(torch.tensor([stop]), 6).float()
    assert int(kept_length(certain)) == stop + 1
    expected = [1.0] * (stop + 1) + [0.0] * (5 - stop)
    assert soft_keep_mask(certain)[0].tolist() == expected
    assert keep_mask(torch.tensor([stop + 1]), 6)[0].tolist() == [bool(value) for value in expected]


def test_soft_keep_mask_has_the_gradient_of_reaching_each_position() -> None:
    logits = torch.tensor([[0.3, -0.2, 0.5, 0.1, 0.0, -0.7]], requires_grad=True)
    weights = torch.tensor([[1.0, -2.0, 3.0, 0.5, 0.7, 2.0]])
    (soft_keep_mask(logits.softmax(-1)) * weights).sum().backward()
    straight = logits.grad
    other = logits.detach().clone().requires_grad_(True)
    reached = torch.stack([other.softmax(-1)[0, i:].sum() for i in range(6)])
    (reached * weights[0]).sum().backward()
    assert straight is not None
    assert other.grad is not None
    torch.testing.assert_close(straight, other.grad)


def test_losses_against_numpy() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 8, 8)) * 3
    masks = (rng.random((3, 8, 8)) > 0.6).astype(np.float64)
    p = 1 / (1 + np.exp(-logits))
    bce = -(masks * np.log(p) + (1 - masks) * np.log(1 - p)).mean((1, 2))
    dice = 1 - (2 * (p * masks).sum((1, 2)) + 1) / (p.sum((1, 2)) + masks.sum((1, 2)) + 1)
    as_tensors = torch.tensor(logits).float(), torch.tensor(masks).float()
    np.testing.assert_allclose(bce_loss(*as_tensors), bce, rtol=1e-5)
    np.testing.assert_allclose(dice_loss(*as_tensors), dice, rtol=1e-5)


def test_dice_is_per_mask() -> None:
    """A large mask that is right cannot hide a small one that is missed."""
    masks = torch.zeros(2, 16, 16)
    masks[0], masks[1, :2, :2] = 1, 1
    logits = torch.stack([torch.full((16, 16), 20.0), torch.full((16, 16), -20.0)])
    assert dice_loss(logits, masks).tolist() == pytest.approx([0.0, 1 - 1 / 5], abs=1e-4)


def test_edge_loss_against_scipy() -> None:
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(size=(3, 9, 9)), (rng.random((3, 9, 9)) > 0.5).astype(float)
    kernel = np.full((3, 3), -1 / 8)
    kernel[1, 1] = 1.0
    expected = [
        np.square(convolve(expit(each) - mask, kernel, mode="nearest")).mean()
        for each, mask in zip(logits, masks, strict=True)
    ]
    found = edge_loss(torch.from_numpy(logits), torch.from_numpy(masks))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("level", [-3.0, 0.0, 2.0])
def test_edge_loss_does_not_respond_to_flat_areas(level: float) -> None:
    flat = torch.full((1, 8, 8), level)
    for mask in (torch.zeros(1, 8, 8), torch.ones(1, 8, 8)):
        assert edge_loss(flat, mask).item() == pytest.approx(0, abs=1e-12)
    half = torch.zeros(1, 8, 8)
    half[:, :, 4:] = 1
    assert edge_loss(flat, half).item() > 1e-3


def test_perfect_predictions_of_empty_masks_cost_nothing() -> None:
    logits, masks = torch.full((1, 8, 8), -30.0), torch.zeros(1, 8, 8)
    assert float(bce_loss(logits, masks)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(logits, masks)) == pytest.approx(0, abs=1e-6)


def test_prefixes_decoded_in_one_batch_equal_prefixes_decoded_alone() -> None:
    torch.manual_seed(0)
    model = MaskTokenizer(TINY).eval()
    embedding = model.encode_image(torch.rand(2, 3, 64, 64))
    codes = torch.randint(32, (4, 6))
    together = decode_prefixes(model, codes, embedding)
    for mask, length in itertools.product(range(4), range(1, 7)):
        image = embedding[mask // 2 : mask // 2 + 1]
        alone = model.decode(codes[mask : mask + 1, :length], torch.tensor([length]), image)
        torch.testing.assert_close(together[mask, length - 1 : length], alone, atol=1e-5, rtol=0)


def test_prefix_iou_and_oracle_length_by_brute_force() -> None:
    torch.manual_seed(0)
    model = MaskTokenizer(TINY).eval()
    embedding = model.embedding_without_image(1)
    masks = (torch.rand(5, 1, 32, 32) > 0.5).float()
    codes = model.encode(masks).codes
    ious = prefix_iou(model, codes, masks, embedding)
    for tolerance in (0.0, 0.003, 0.02, 1.0):
        lengths = oracle_length(ious, tolerance)
        for mask in range(5):
            target = masks[mask, 0].numpy() > 0.5
            expected = []
            for length in range(1, 7):
                logits = model.decode(codes[mask : mask + 1], torch.tensor([length]), embedding)
                guess = logits[0].detach().numpy() > 0
                expected.append((guess & target).sum() / (guess | target).sum())
            np.testing.assert_allclose(ious[mask], expected, atol=2e-3)
            measured = ious[mask].tolist()
            good = [n + 1 for n, value in enumerate(measured) if value >= measured[-1] - tolerance - 1e-9]
            assert int(lengths[mask]) == good[0]


def test_oracle_takes_the_shortest_even_where_iou_falls_in_between() -> None:
    ious = torch.tensor([[0.2, 0.81, 0.5, 0.8], [0.1, 0.2, 0.3, 0.9]])
    assert oracle_length(ious, 0.02).tolist() == [2, 4]


def test_oracle_objective_against_numpy() -> None:
    torch.manual_seed(0)
    model = MaskTokenizer(TINY).eval()
    rng = np.random.default_rng(0)
    batch = BatchTensors(
        CropBatch(
            image_ids=("a", "b"),
            images=rng.integers(0, 256, (2, 3, 64, 64), np.uint8),
            masks=(rng.random((2, 3, 32, 32)) > 0.5).astype(np.float32),
        ),
        range(2),
        step_crops=2,
        device=torch.device("cpu"),
    )
    settings = PredictorSettings(objective="oracle", length_weight=0.1, prefixes=20, temperature=0.05)
    loss = PredictorTraining(model, settings).forward(0, batch).loss.item()

    encoding = model.encode(batch.masks)
    ious = prefix_iou(model, encoding.codes, batch.masks, model.encode_image(batch.images)).double().numpy()
    utility = ious - 0.1 * np.arange(1, 7) / 6
    off = 0.05 * np.log(encoding.stop_probabilities.detach().double().numpy()) - utility
    # What is the same for all lengths of a mask is free.
    assert loss == pytest.approx(off.var(axis=1).mean() / 0.05, rel=1e-4)


def test_spread_lengths_hold_both_ends() -> None:
    assert spread_lengths(16, 7).tolist() == [1, 2, 3, 4, 6, 10, 16]
    assert spread_lengths(4, 10).tolist() == [1, 2, 3, 4]


@settings(max_examples=20, deadline=None)
@given(longest=st.integers(2, 40), count=st.integers(2, 12))
def test_interpolation_against_numpy(longest: int, count: int) -> None:
    lengths = spread_lengths(longest, count)
    values = torch.rand(3, len(lengths), generator=torch.Generator().manual_seed(longest))
    result = interpolate(values, lengths, longest)
    wanted = np.arange(1, longest + 1)
    for row, expected in zip(result.numpy(), values.numpy(), strict=True):
        np.testing.assert_allclose(row, np.interp(wanted, lengths.numpy(), expected), atol=1e-6)


def test_drawn_lengths_cover_all_and_favour_neither_end_by_accident() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = draw_lengths(20_000, 16, full_share=0.25, generator=generator)
    counts = np.bincount(lengths.numpy(), minlength=17)[1:] / 20_000
    assert counts.min() > 0.01
    short = [math.log((n + 1) / n) / math.log(17) for n in range(1, 17)]
    expected = 0.75 * np.array(short) + 0.25 * np.eye(16)[15]
    np.testing.assert_allclose(counts, expected, atol=0.015)
