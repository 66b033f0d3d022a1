"""The Schur basis: an orthogonal change of basis in which matrices that treat all players alike fall into blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyinterp.ops._schur import apply_blocks, inverse_gram, rotate, schur


def gram(n: int) -> Tensor:
    """Z Zᵀ + Y Yᵀ over non-empty subsets straight from the definition, and 1 for the empty one."""
    total = torch.zeros(2**n, 2**n, dtype=torch.float64)
    total[0, 0] = 1
    for s in range(1, 2**n):
        inside = torch.tensor([float(t > 0 and s & t == s) for t in range(2**n)], dtype=torch.float64)
        meeting = torch.tensor([float(s & t != 0) for t in range(2**n)], dtype=torch.float64)
        total += torch.outer(inside, inside) + torch.outer(meeting, meeting)
    return total


@pytest.mark.parametrize("n", range(9))
def test_the_change_of_basis_is_orthogonal(n: int) -> None:
    identity = torch.eye(2**n, dtype=torch.float64)
    turned = rotate(identity, schur(n))
    torch.testing.assert_close(turned @ turned.T, identity)
    torch.testing.assert_close(rotate(turned, schur(n), back=True), identity)


@pytest.mark.parametrize("n", range(12))
def test_the_blocks_cover_the_basis(n: int) -> None:
    basis = schur(n)
    assert sorted(basis.paths.tolist()) == list(range(2**n))
    assert sum(d * count for d, count, _, _ in basis.kinds.tolist()) == 2**n


@pytest.mark.parametrize("slack", [0.0, 0.5])
@pytest.mark.parametrize("n", range(9))
def test_the_inverse_is_that_of_the_definition(n: int, slack: float) -> None:
    x = torch.randn(3, 2**n, dtype=torch.float64)
    basis = schur(n)
    found = rotate(apply_blocks(rotate(x, basis), basis, inverse_gram(n, slack)), basis, back=True)
    matrix = gram(n) + slack * torch.eye(2**n, dtype=torch.float64)
    torch.testing.assert_close(found @ matrix, x, atol=1e-8, rtol=0)


def test_the_inverse_keeps_its_digits_for_many_players() -> None:
    n = 14
    x = torch.randn(1, 2**n, dtype=torch.float64)
    x[:, 0] = 0
    basis = schur(n)
    found = rotate(apply_blocks(rotate(x, basis), basis, inverse_gram(n, 0.0)), basis, back=True)
    found[:, 0] = 0
    from pyinterp.ops._and_or import fit, pull

    torch.testing.assert_close(fit(pull(found)), x, atol=1e-4, rtol=0)
