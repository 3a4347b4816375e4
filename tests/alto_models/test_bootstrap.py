import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_models.bootstrap import ImageBootstrap


def draw(image_ids: list[str], seed: int = 0, resamples: int = 400) -> ImageBootstrap:
    return ImageBootstrap.draw(image_ids, resamples=resamples, seed=seed)


def test_ratio_is_of_sums_not_a_mean_of_ratios() -> None:
    interval = draw(["a", "b"]).ratio([1, 0], [1, 9])
    assert interval.value == pytest.approx(0.1)


def test_samples_of_one_image_are_drawn_together() -> None:
    """Ten samples of one image hold no more information than one: there is nothing to resample."""
    interval = draw(["a"] * 10).ratio([1, 0] * 5, [1] * 10)
    assert interval == (0.5, 0.5, 0.5)


def test_interval_is_about_that_of_the_normal_approximation() -> None:
    """Mean of 400 independent coin flips: standard error sqrt(0.25 / 400) = 0.025."""
    flips = np.random.default_rng(1).permutation([0, 1] * 200)
    interval = draw([str(i) for i in range(400)], resamples=4000).ratio(flips, np.ones(400))
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.005)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.005)


def test_pairing_cancels_what_both_systems_share() -> None:
    """A system that is better by 0.01 on every image is surely better, however images differ."""
    quality = np.random.default_rng(2).random(50) * 0.9
    ones = np.ones(50)
    difference = draw([str(i) for i in range(50)]).difference((quality + 0.01, ones), (quality, ones))
    assert difference == pytest.approx((0.01, 0.01, 0.01))


def test_nothing_to_average_is_nan() -> None:
    assert math.isnan(draw(["a", "b"]).ratio([0, 0], [0, 0]).value)


def test_same_seed_same_interval_and_order_of_samples_does_not_matter() -> None:
    ids = ["b", "a", "c", "a"]
    values = np.array([0.1, 0.5, 0.9, 0.3])
    order = [2, 0, 3, 1]
    first = draw(ids, seed=3).ratio(values, np.ones(4))
    again = draw([ids[i] for i in order], seed=3).ratio(values[order], np.ones(4))
    assert first == pytest.approx(again)
    assert first != draw(ids, seed=4).ratio(values, np.ones(4))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 1000))
def test_interval_surrounds_the_value(values: list[float], seed: int) -> None:
    interval = draw([str(i) for i in range(len(values))], seed=seed).ratio(values, np.ones(len(values)))
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
