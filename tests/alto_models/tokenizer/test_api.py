"""The two verbs: any mask of any size comes back at that size, with as many codes as were asked for."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alto_models.checkpoint import save_checkpoint
from alto_models.data.files import MAX_SIDE
from alto_models.metrics import iou
from alto_models.tokenizer.api import TokenizedMask, TrainedTokenizer
from alto_models.tokenizer.model import Encoding, MaskTokenizer
from data_contracts.errors import InputError
from tests.alto_models.tokenizer.tiny import TINY


@pytest.fixture(scope="module")
def tokenizer() -> TrainedTokenizer:
    torch.manual_seed(0)
    model = MaskTokenizer(TINY)
    with torch.no_grad():
        model.no_image.normal_()
        for parameter in model.encoder.parameters():
            parameter.mul_(10)  # untrained, it would give most masks the same codes
    return TrainedTokenizer(model)


def random_mask(height: int, width: int, seed: int = 0) -> np.ndarray:
    """About a quarter of the image, as a rectangle; at least one pixel."""
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(height)), int(rng.integers(width))
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + math.ceil(height / 2), left : left + math.ceil(width / 2)] = True
    return mask


def random_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


sides = st.integers(1, 300)


@settings(max_examples=25, deadline=None)
@given(height=sides, width=sides, seed=st.integers(0, 99), with_image=st.booleans())
@example(height=1, width=2000, seed=1, with_image=True)
@example(height=2000, width=1, seed=1, with_image=True)
def test_any_size_comes_back(
    tokenizer: TrainedTokenizer, height: int, width: int, seed: int, with_image: bool
) -> None:
    image = random_picture(height, width, seed) if with_image else None
    tokenized = tokenizer.tokenize(random_mask(height, width, seed), image)
    assert (tokenized.height, tokenized.width) == (height, width)
    assert 1 <= tokenized.length == len(tokenized.codes) <= TINY.max_length
    assert all(0 <= code < TINY.codebook_size for code in tokenized.codes)
    decoded = tokenizer.detokenize(tokenized, image)
    assert decoded.shape == (height, width)
    assert decoded.dtype == np.bool_


@settings(max_examples=20, deadline=None)
@given(limit=st.integers(1, 2 * TINY.max_length), seed=st.integers(0, 99))
def test_fewer_tokens_are_the_first_ones(tokenizer: TrainedTokenizer, limit: int, seed: int) -> None:
    mask = random_mask(50, 70, seed)
    unlimited = tokenizer.tokenize(mask)
    limited = tokenizer.tokenize(mask, max_tokens=limit)
    assert limited.length == min(limit, unlimited.length)
    assert limited.codes == unlimited.codes[: limited.length]


def test_quality_keeps_the_shortest_prefix_that_reaches_it(tokenizer: TrainedTokenizer) -> None:
    """Against each prefix decoded on its own and compared at the original size."""
    mask, image = random_mask(90, 60, 3), random_picture(90, 60)
    full = tokenizer.tokenize(mask, image, quality=1.0)
    assert full.length == TINY.max_length
    reached = []
    for length in range(1, full.length + 1):
        prefix = TokenizedMask(codes=full.codes[:length], height=90, width=60)
        reached.append(iou(tokenizer.detokenize(prefix, image), mask))
    assert full.iou == pytest.approx(reached[-1], abs=1e-3)
    levels = sorted({round(value, 4) for value in reached})
    assert len(levels) > 1
    for lower, upper in zip(levels[:-1], levels[1:], strict=True):
        quality = (lower + upper) / 2
        shortest = next(length for length, value in enumerate(reached, 1) if value >= quality)
        kept = tokenizer.tokenize(mask, image, quality=quality)
        assert kept.codes == full.codes[:shortest]
        assert kept.iou == pytest.approx(reached[shortest - 1], abs=1e-3)


def test_an_encoded_image_stands_for_the_image(tokenizer: TrainedTokenizer) -> None:
    mask, image = random_mask(40, 80), random_picture(40, 80)
    encoded = tokenizer.encode_image(image)
    tokenized = tokenizer.tokenize(mask, image, quality=0.2)
    assert tokenizer.tokenize(mask, encoded, quality=0.2) == tokenized
    assert np.array_equal(tokenizer.detokenize(tokenized, encoded), tokenizer.detokenize(tokenized, image))


def test_without_an_image_the_learned_stand_in_is_decoded_with() -> None:
    torch.manual_seed(0)
    model = MaskTokenizer(TINY)
    tokenizer = TrainedTokenizer(model)
    tokenized, image = tokenizer.tokenize(random_mask(64, 64)), random_picture(64, 64)

    def both() -> tuple[np.ndarray, np.ndarray]:
        return tokenizer.detokenize(tokenized), tokenizer.detokenize(tokenized, image)

    alone, with_image = both()
    with torch.no_grad():
        model.no_image += 3.0
    changed_alone, same_with_image = both()
    assert not np.array_equal(alone, changed_alone)
    assert np.array_equal(with_image, same_with_image)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (5, 40), (1023, 1023)])
def test_a_pixel_between_the_models_samples_is_seen_as_its_cell(
    tokenizer: TrainedTokenizer, row: int, column: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = MaskTokenizer.encode

    def recorded(model: MaskTokenizer, masks: torch.Tensor) -> Encoding:
        seen.append(masks)
        return original(model, masks)

    monkeypatch.setattr(MaskTokenizer, "encode", recorded)
    mask = np.zeros((1024, 1024), np.bool_)
    mask[row, column] = True
    tokenizer.tokenize(mask)
    cell = 1024 // TINY.mask_size
    assert seen[0][0, 0].nonzero().tolist() == [[row // cell, column // cell]]


def test_a_full_mask_is_tokenized_and_an_empty_one_refused(tokenizer: TrainedTokenizer) -> None:
    assert tokenizer.tokenize(np.ones((30, 20), np.uint8)).length >= 1
    with pytest.raises(InputError, match="the mask is empty"):
        tokenizer.tokenize(np.zeros((30, 20), np.bool_))


def test_levels_other_than_two_are_refused(tokenizer: TrainedTokenizer) -> None:
    with pytest.raises(InputError, match="grey levels from 0 to 3"):
        tokenizer.tokenize(np.arange(4).reshape(2, 2))


def test_an_image_must_be_as_large_as_its_mask(tokenizer: TrainedTokenizer) -> None:
    mask, image = random_mask(30, 20), random_picture(20, 30)
    for other in (image, tokenizer.encode_image(image)):
        with pytest.raises(InputError, match="the mask is 20 x 30 pixels, its image 30 x 20"):
            tokenizer.tokenize(mask, other)
        with pytest.raises(InputError, match="the mask is 20 x 30 pixels, its image 30 x 20"):
            tokenizer.detokenize(tokenizer.tokenize(mask), other)
    with pytest.raises(InputError, match=r"an image is \(H, W, 3\) uint8"):
        tokenizer.tokenize(mask, np.zeros((30, 20), np.uint8))


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ({"quality": 0.0}, "quality is an IoU above 0 and up to 1"),
        ({"quality": 1.01}, "quality is an IoU above 0 and up to 1"),
        ({"quality": math.nan}, "quality is an IoU above 0 and up to 1"),
        ({"max_tokens": 0}, "max_tokens is at least 1"),
        ({"quality": 0.5, "max_tokens": 3}, "give quality or max_tokens, not both"),
    ],
)
def test_impossible_wishes_are_refused(tokenizer: TrainedTokenizer, wanted: dict, line: str) -> None:
    with pytest.raises(InputError, match=line):
        tokenizer.tokenize(random_mask(30, 20), **wanted)


@pytest.mark.parametrize(
    ("codes", "line"),
    [
        ((32,), "code 32 is not in the model's codebook, 0 to 31"),
        ((0, -1), "code -1 is not in the model's codebook"),
        ((2**70,), "is not in the model's codebook"),
        ((0,) * 7, "7 codes, but the model has at most 6 a mask"),
    ],
)
def test_codes_of_another_model_are_refused(
    tokenizer: TrainedTokenizer, codes: tuple[int, ...], line: str
) -> None:
    with pytest.raises(InputError, match=line):
        tokenizer.detokenize(TokenizedMask(codes=codes, height=9, width=9))


@pytest.mark.parametrize(
    "fields",
    [
        {"codes": ()},
        {"height": 0},
        {"width": MAX_SIDE + 1},
        {"length": 3},
        {"codes": (1.0,)},
        {"codes": (True,)},
    ],
)
def test_impossible_tokenized_masks_cannot_be_made(fields: dict) -> None:
    with pytest.raises(ValidationError):
        TokenizedMask(**{"codes": (1, 2), "height": 4, "width": 4} | fields)


def test_a_checkpoint_folder_gives_the_same_codes(tokenizer: TrainedTokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, TINY, tokenizer.model.state_dict())
    loaded = TrainedTokenizer.from_folder(tmp_path)
    mask = random_mask(33, 44)
    assert loaded.tokenize(mask, quality=1.0) == tokenizer.tokenize(mask, quality=1.0)
