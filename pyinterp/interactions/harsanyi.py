"""Harsanyi interactions: the AND effects and the OR effects that a game over 2^n subsets consists of."""

from __future__ import annotations

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.interactions.subsets import check_values
from pyinterp.ops.subset_sum import subset_sum


def harsanyi_and(values: Tensor) -> Tensor:
    """Return the AND interactions (Harsanyi dividends) of games.

    Args:
        values: (..., 2^n) v(T) of every subset T of n players; bit i of an index says that player i is in.

    Returns:
        (..., 2^n) I_and(S) = sum over T ⊆ S of (-1)^(|S|-|T|) v(T): what the players of S add when all of them are
        there. I_and(∅) = v(∅).

    Equivalent to ``subset_sum(values, inverse=True)``. Differentiable. An error of σ in v is one of σ 2^(|S|/2) in
    I(S).

    Raises:
        ValueError: `values` is no (..., 2^n), or holds NaN or infinity (the message says for which subsets).
        TypeError: `values` holds no floating-point numbers.

    Source: Harsanyi, "A Simplified Bargaining Model for the n-Person Cooperative Game", 1963.
    """
    check_values("harsanyi_and", values)
    return subset_sum(values, inverse=True)


def harsanyi_or(values: Tensor) -> Tensor:
    """Return the OR interactions of games.

    Args:
        values: (..., 2^n) v(T) of every subset T of n players; bit i of an index says that player i is in.

    Returns:
        (..., 2^n) I_or(S) = -sum over T ⊆ S of (-1)^(|S|-|T|) v(N∖T): what is there as soon as one player of S is.
        I_or(∅) = v(∅).

    Equivalent to ``-harsanyi_and(values.flip(-1))`` but for the empty subset: an OR is an AND of absent players.
    Differentiable.

    Raises:
        ValueError: `values` is no (..., 2^n), or holds NaN or infinity (the message says for which subsets).
        TypeError: `values` holds no floating-point numbers.

    Source: Cheng et al., "Layerwise Change of Knowledge in Neural Networks", ICML 2024.
    """
    check_values("harsanyi_or", values)
    absent = subset_sum(values.flip(-1), inverse=True)
    return torch.cat([values[..., :1], -absent[..., 1:]], dim=-1)


def reconstruct(and_: Tensor, or_: Tensor) -> Tensor:
    """Return the games that AND and OR interactions make up.

    Args:
        and_: (..., 2^n) AND interactions.
        or_: (..., 2^n) OR interactions.

    Returns:
        (..., 2^n) v(T) = I_or(∅) + sum over S ⊆ T of I_and(S) + sum over S ∩ T ≠ ∅ of I_or(S).

    ``reconstruct(harsanyi_and(v), 0 * v)`` and ``reconstruct(0 * v, harsanyi_or(v))`` are `v` up to rounding
    (universal matching); where both parts carry v(∅), it counts twice. Differentiable.

    Raises:
        ValueError: A shape is no (..., 2^n), the two differ, or NaN or infinity is in them.
        TypeError: They hold no floating-point numbers.

    Source: Cheng et al., "Layerwise Change of Knowledge in Neural Networks", ICML 2024.
    """
    check_values("reconstruct", and_, "and_")
    check_values("reconstruct", or_, "or_")
    if and_.shape != or_.shape:
        got = f"{tuple(and_.shape)} and {tuple(or_.shape)}"
        fix = "Give the AND and the OR interactions of the same games."
        raise ValueError(explain("reconstruct", "and_ and or_ of one shape", got, fix))
    inside = subset_sum(or_)  # sums over S ⊆ T; those that meet T are all but the ones inside N∖T
    return subset_sum(and_) + or_[..., :1] + (inside[..., -1:] - inside.flip(-1))
