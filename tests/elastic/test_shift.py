"""Shifts of a feature's weights: the smallest penalty by the definition, and what it saves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyinterp.elastic.penalty import Penalty
from pyinterp.elastic.shift import best_shift
from pyinterp.heads import fit_sparse_path


def penalty_after(column: Tensor, penalty: Penalty, shifts: Tensor) -> Tensor:
    moved = column[:, None] - shifts
    norm = moved.norm(dim=0) if penalty.grouped else moved.abs().sum(0)
    return penalty.l1 * norm + penalty.l2 / 2 * moved.square().sum(0)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_no_shift_has_a_smaller_penalty(classes: int, alpha: float, grouped: bool) -> None:
    generator = torch.Generator().manual_seed(classes)
    weights = torch.randn(classes, 30, generator=generator, dtype=torch.float64)
    weights[torch.rand(classes, 30, generator=generator) < 0.4] = 0
    penalty = Penalty(0.3, alpha, grouped)
    found = best_shift(weights, penalty)
    torch.testing.assert_close((weights - found).std(0), torch.zeros(30).double(), rtol=0, atol=1e-15)
    shifts = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    for before, after in zip(weights.T, found.T, strict=True):
        least = penalty_after(before, penalty, shifts).min()
        assert float(penalty_after(after, penalty, torch.zeros(1))) <= float(least) + 1e-12


def test_columns_with_many_zeros_stay_to_the_last_bit() -> None:
    weights = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    weights[3:] = 0
    assert torch.equal(best_shift(weights, Penalty(0.1, 0.99, False)), weights)
    moved = best_shift(weights[:3], Penalty(0.1, 0.99, False))
    assert bool(((moved == 0).sum(0) == 1).all())  # of three, the middle one is taken off


def test_dense_heads_take_few_passes() -> None:
    """The loss is flat along such shifts: without them this path took 1,300 passes."""
    generator = torch.Generator().manual_seed(0)
    features, labels = (
        torch.randn(200, 20, generator=generator),
        torch.randint(0, 4, (200,), generator=generator),
    )
    features[:, 0] += 0.5 * labels
    path = fit_sparse_path(features, labels, n_lambdas=20, min_ratio=1e-2)
    assert bool(path.converged.all())
    assert int(path.passes.sum()) < 400
