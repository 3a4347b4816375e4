"""What all masks have in common, against what they differ in."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_models.training.normalisation import common_part


def features(offset: float, scale: float = 1.0) -> torch.Tensor:
    return offset + scale * torch.from_numpy(np.random.default_rng(0).normal(size=(32, 6))).float()


@settings(max_examples=25, deadline=None)
@given(offset=st.floats(-50, 50), scale=st.floats(1, 10))
def test_it_is_the_mean_log_of_squared_mean_over_variance(offset: float, scale: float) -> None:
    found = features(offset, scale)
    values = found.double().numpy()
    expected = np.log1p(values.mean(0) ** 2 / values.var(0)).mean()
    assert common_part(found).item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_it_does_not_depend_on_the_scale_of_the_features() -> None:
    assert common_part(1000 * features(3.0)).item() == pytest.approx(
        common_part(features(3.0)).item(), rel=1e-5
    )


def test_learning_from_it_brings_the_common_part_down_and_keeps_the_differences() -> None:
    offset = torch.full((6,), 20.0, requires_grad=True)
    spread = features(0.0)
    optimizer = torch.optim.Adam([offset], 0.5)
    for _ in range(60):
        optimizer.zero_grad()
        common_part(spread + offset).backward()
        optimizer.step()
    assert common_part(spread + offset).item() < 0.1


def test_features_that_no_mask_differs_in_have_a_finite_one() -> None:
    same = torch.ones(8, 4, requires_grad=True)
    value = common_part(same)
    value.backward()
    assert value.isfinite()
    assert same.grad is not None
    assert same.grad.isfinite().all()
