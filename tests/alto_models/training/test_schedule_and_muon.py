"""Learning-rate schedule and Muon."""

import pytest
import torch
from torch import nn

from alto_models.training.muon import Muon, orthogonalise
from alto_models.training.schedule import LearningRate, set_learning_rate


def test_warm_up_then_cosine_to_the_final_rate() -> None:
    rate = LearningRate(peak=1.0, final=0.2, warmup_steps=10)
    assert rate.at(0, 110) == pytest.approx(0.1)
    assert rate.at(9, 110) == pytest.approx(1.0)
    assert rate.at(60, 110) == pytest.approx(0.6)
    assert rate.at(110, 110) == pytest.approx(0.2)
    assert rate.at(500, 110) == pytest.approx(0.2)


def test_equal_peak_and_final_is_constant_after_warm_up() -> None:
    rate = LearningRate(peak=0.5, final=0.5, warmup_steps=0)
    assert {rate.at(step, 7) for step in range(8)} == {0.5}


def test_orthogonalise_keeps_singular_vectors_and_levels_singular_values() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 12, 30, generator=generator)
    result = orthogonalise(matrices)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    rotated = u.mT @ result @ v.mT
    off_diagonal = rotated - torch.diag_embed(torch.diagonal(rotated, dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 0.05


def test_tall_and_wide_matrices_are_treated_alike() -> None:
    matrix = torch.randn(1, 5, 9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalise(matrix).mT, orthogonalise(matrix.mT))


def test_other_groups_are_plain_adamw() -> None:
    def trained(make: type[torch.optim.Optimizer]) -> torch.Tensor:
        torch.manual_seed(0)
        layer = nn.Linear(4, 3)
        optimizer = make([{"params": list(layer.parameters())}], lr=0.1, weight_decay=0.3)
        for _ in range(5):
            optimizer.zero_grad()
            layer(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
        return layer.weight.detach()

    assert torch.equal(trained(Muon), trained(torch.optim.AdamW))


def test_matrices_move_by_the_rate_in_every_direction() -> None:
    weight = nn.Parameter(torch.zeros(4, 4))
    optimizer = Muon([{"params": [weight], "matrices": True, "rate_scale": 2.0}], lr=1.0, weight_decay=0.0)
    set_learning_rate(optimizer, 0.05)
    # Gradients of very different size along the four directions.
    weight.grad = torch.diag(torch.tensor([1.0, 0.5, 0.3, 0.2]))
    optimizer.step()
    moved = -weight.detach().diagonal() / (2.0 * 0.05 * 0.2 * 4**0.5)
    assert moved.min() > 0.6
    assert moved.max() < 1.3
