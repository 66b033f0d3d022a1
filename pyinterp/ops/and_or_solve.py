"""and_or_solve: the sparse AND and OR effects of many games, the whole iteration in one kernel."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.ops._and_or import CHECK, SumOfSizes, slack_of, solve
from pyinterp.ops._common import LIBRARY, register
from pyinterp.ops._schur import Schur, inverse_gram, schur


def _reference(
    values: Tensor,
    bound: Tensor,
    pairs: Tensor,
    angles: Tensor,
    rounds: Tensor,
    paths: Tensor,
    kinds: Tensor,
    inverse: Tensor,
    exact: Tensor,
    slack: float,
    tolerance: float,
    max_iterations: int,
    check: int,
) -> tuple[Tensor, Tensor, Tensor]:
    and_, or_, report = _empty(values)
    for i in range(len(values)):
        found = solve(values[i : i + 1], bound[i : i + 1], SumOfSizes(), tolerance, max_iterations)
        and_[i], or_[i] = found.effects[:, 0]
        and_[i, 0] = values[i, 0]
        numbers = [found.objective, found.lower_bound, float(found.iterations)]
        report[i] = torch.tensor(numbers, dtype=report.dtype)
    return and_, or_, report


def _fake(values: Tensor, bound: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(values)


def _empty(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    like = torch.empty_like(values, memory_format=torch.contiguous_format)
    return like, torch.empty_like(like), values.new_empty((values.shape[0], 3))


_and_or_solve = register(
    "and_or_solve",
    "(Tensor values, Tensor bound, Tensor pairs, Tensor angles, Tensor rounds, Tensor paths, Tensor kinds, "
    "Tensor inverse, Tensor exact, float slack, float tolerance, int max_iterations, int check) "
    "-> (Tensor, Tensor, Tensor)",
    _reference,
    _fake,
)


@lru_cache(maxsize=16)
def _tables(n: int, device: torch.device) -> tuple[Schur, Tensor, Tensor]:
    basis = Schur(*(table.to(device) for table in schur(n)))
    return basis, inverse_gram(n, slack_of(n)).to(device), inverse_gram(n, 0.0).to(device)


def _split(
    values: Tensor, bound: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    n = values.shape[1].bit_length() - 1
    basis, inverse, exact = _tables(n, values.device)
    found: tuple[Tensor, Tensor, Tensor] = _and_or_solve(
        values, bound, *basis, inverse, exact, slack_of(n), tolerance, max_iterations, CHECK
    )
    return found


# An op of its own, so that a compiled graph holds the call and not the making of the tables.
LIBRARY.define(
    "and_or_split(Tensor values, Tensor bound, float tolerance, int max_iterations) -> (Tensor, Tensor, Tensor)"
)
LIBRARY.impl("and_or_split", _split, "CompositeExplicitAutograd")
torch.library.register_fake("pyinterp::and_or_split", _fake, lib=LIBRARY)


def and_or_solve(
    values: Tensor, bound: Tensor, tolerance: float = 1e-3, max_iterations: int = 10_000
) -> tuple[Tensor, Tensor, Tensor]:
    """Split games into the AND and OR effects whose sizes have the least sum, many games at once.

    For each game, with a over the non-empty subsets S as AND and o as OR effects,

        minimise sum |a(S)| + |o(S)|  such that
        |v(∅) + sum over ∅ ≠ S ⊆ T of a(S) + sum over S meeting T of o(S) - v(T)| <= bound  for all T ≠ ∅.

    Args:
        values: (games, 2^n) float64, n <= 20, finite; bit i of an index says that player i is present.
        bound: (games,) float64, not negative: how far the effects may miss a value; 0 asks for an exact split.
        tolerance: A game is done when its objective is proven to be within this share of the least one.
        max_iterations: And at the latest after so many.

    Returns:
        AND effects (games, 2^n), with v(∅) in entry 0, OR effects (games, 2^n), with 0 in entry 0, both float64, and
        (games, 3): the objective, a lower bound of the least objective, and the iterations taken.

    The effects keep to the bound up to rounding whether the tolerance was reached or not. Not differentiable.

    Raises:
        ValueError: The shapes, the bound or the tolerance do not fit.
        TypeError: `values` or `bound` is not float64.

    Source: the problem is that of Li and Zhang, "Does a Neural Network Really Encode Symbolic Concepts?", ICML 2023,
    with the noise term of Chen et al., ICLR 2024; for the method see `pyinterp.ops._and_or`.
    """
    if values.dtype != torch.float64 or bound.dtype != torch.float64:
        got = f"{values.dtype} values, {bound.dtype} bound"
        raise TypeError(
            explain("and_or_solve", "float64 values and bound", got, "Convert them with .double().")
        )
    size = values.shape[-1] if values.dim() == 2 else 0
    if size < 1 or size & (size - 1) or size > 2**20:
        fix = "Give one row of 2^n values, n <= 20, per game."
        raise ValueError(explain("and_or_solve", "values of shape (games, 2^n)", tuple(values.shape), fix))
    if bound.shape != values.shape[:1]:
        fix = "Give one bound per game."
        raise ValueError(explain("and_or_solve", f"bound of shape ({len(values)},)", tuple(bound.shape), fix))
    if not tolerance >= 0 or max_iterations < 1:
        got = f"tolerance={tolerance}, max_iterations={max_iterations}"
        raise ValueError(
            explain("and_or_solve", "tolerance >= 0 and max_iterations >= 1", got, "Change them.")
        )
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.pyinterp.and_or_split(
        values.detach(), bound.detach(), tolerance, max_iterations
    )
    return found
