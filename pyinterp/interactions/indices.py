"""Shapley, Banzhaf and interaction indices of games, from the AND interactions by sums over supersets.

Every index here spreads the AND interaction (Harsanyi dividend) I(T) of a set over its subsets S, by a weight that
depends on the two sizes alone. For one size of S that is a product with a weight per |T| and one sum over supersets,
so an index up to order k takes k of them: O(k n 2^n) in place of loops over 3^n pairs of sets.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.interactions.harsanyi import harsanyi_and
from pyinterp.interactions.subsets import check_values, subset_sizes
from pyinterp.ops.subset_sum import subset_sum

Weight = Callable[[int, int], float]  # (|T|, |S|) -> the share of I(T) that goes to each S ⊆ T


def shapley(values: Tensor) -> Tensor:
    """Return the Shapley value of every player.

    Args:
        values: (..., 2^n) v(T) of every subset T; bit i of an index says that player i is in.

    Returns:
        (..., n) φ_i = sum over S ∋ i of I(S) / |S|: every AND interaction is shared equally by its players. They add
        up to v(N) - v(∅).

    Raises:
        ValueError: `values` is no (..., 2^n), or holds NaN or infinity.
        TypeError: `values` holds no floating-point numbers.

    Source: Shapley, "A Value for n-Person Games", 1953; by dividends: Harsanyi, 1963.
    """
    return _per_player(values, "shapley", lambda t, s: 1 / t)


def banzhaf(values: Tensor) -> Tensor:
    """Return the Banzhaf value of every player.

    Args:
        values: (..., 2^n) v(T) of every subset T; bit i of an index says that player i is in.

    Returns:
        (..., n) β_i = sum over S ∋ i of 2^(1-|S|) I(S), which is the mean of v(T ∪ i) - v(T) over all T without i.

    Raises:
        ValueError: `values` is no (..., 2^n), or holds NaN or infinity.
        TypeError: `values` holds no floating-point numbers.

    Source: Banzhaf, "Weighted Voting Doesn't Work", 1965; by dividends: Grabisch & Roubens, 1999.
    """
    return _per_player(values, "banzhaf", lambda t, s: 2.0 ** (1 - t))


def sii(values: Tensor, order: int | None = None) -> Tensor:
    """Return the Shapley interaction index.

    Args:
        values: (..., 2^n) v(T) of every subset T; bit i of an index says that player i is in.
        order: The largest size of a set, 1 ... n; None means n.

    Returns:
        (..., 2^n) SII(S) = sum over T ⊇ S of I(T) / (|T| - |S| + 1) for 1 <= |S| <= `order`, v(∅) for the empty set,
        zero for larger sets. It does not depend on `order` otherwise; for |S| = 1 it is the Shapley value.

    Raises:
        ValueError: `values` is no (..., 2^n) or holds NaN or infinity, or `order` is out of range.
        TypeError: `values` holds no floating-point numbers.

    Source: Grabisch & Roubens, "An Axiomatic Approach to the Concept of Interaction among Players in Cooperative
    Games", 1999.
    """
    return _index(values, "sii", order, lambda t, s, k: 1 / (t - s + 1))


def stii(values: Tensor, order: int | None = None) -> Tensor:
    """Return the Shapley-Taylor interaction index.

    Args:
        values: (..., 2^n) v(T) of every subset T; bit i of an index says that player i is in.
        order: The largest size of a set, 1 ... n; None means n.

    Returns:
        (..., 2^n) STII(S) = I(S) for |S| < `order`, sum over T ⊇ S of I(T) / C(|T|, order) for |S| = `order`, zero
        for larger sets. All entries add up to v(N); with `order` n they are the AND interactions.

    Raises:
        ValueError: `values` is no (..., 2^n) or holds NaN or infinity, or `order` is out of range.
        TypeError: `values` holds no floating-point numbers.

    Source: Sundararajan, Dhamdhere & Agarwal, "The Shapley Taylor Interaction Index", ICML 2020.
    """
    return _index(values, "stii", order, lambda t, s, k: 1 / comb(t, k) if s == k else float(t == s))


def fsii(values: Tensor, order: int | None = None) -> Tensor:
    """Return the faithful Shapley interaction index: the best fit of v by sets up to `order`, by Shapley's kernel.

    Args:
        values: (..., 2^n) v(T) of every subset T; bit i of an index says that player i is in.
        order: The largest size of a set, 1 ... n; None means n.

    Returns:
        (..., 2^n), with k = `order` and s = |S|:
        FSII(S) = I(S) + (-1)^(k-s) s/(k+s) C(k, s) sum over T ⊃ S, |T| > k of C(|T|-1, k) / C(|T|+k-1, k+s) I(T)
        for s <= k, zero for larger sets. All entries add up to v(N), and that of the empty set is v(∅).

    Raises:
        ValueError: `values` is no (..., 2^n) or holds NaN or infinity, or `order` is out of range.
        TypeError: `values` holds no floating-point numbers.

    Source: Tsai, Yeh & Ravikumar, "Faith-Shap: The Faithful Shapley Interaction Index", JMLR 2023.
    """

    def weight(t: int, s: int, k: int) -> float:
        if t <= k:
            return float(t == s)
        return (-1) ** (k - s) * s / (k + s) * comb(k, s) * comb(t - 1, k) / comb(t + k - 1, k + s)

    return _index(values, "fsii", order, weight)


def _index(values: Tensor, where: str, order: int | None, weight: Callable[[int, int, int], float]) -> Tensor:
    n = check_values(where, values)
    k = n if order is None else order
    if isinstance(k, bool) or not isinstance(k, int) or not min(1, n) <= k <= n:
        fix = f"Pass the largest size of a set of the {n} players, or None for all."
        raise ValueError(explain(where, f"an order in 1 ... {n}", order, fix))
    return _spread(values, n, k, lambda t, s: weight(t, s, k))


def _per_player(values: Tensor, where: str, weight: Weight) -> Tensor:
    n = check_values(where, values)
    singles = [1 << player for player in range(n)]
    return _spread(values, n, min(n, 1), weight)[..., singles]


def _spread(values: Tensor, n: int, order: int, weight: Weight) -> Tensor:
    """Share out the AND interactions: (..., 2^n), weight(|T|, |S|) I(T) summed over T ⊇ S for |S| <= `order`."""
    dividends = harsanyi_and(values)
    sizes = subset_sizes(n, values.device)
    index = torch.where(sizes == 0, dividends, torch.zeros_like(dividends))
    for s in range(1, order + 1):
        weights = torch.tensor([weight(t, s) if t >= s else 0.0 for t in range(n + 1)], dtype=torch.float64)
        weighted = dividends * weights.to(values.device, values.dtype)[sizes]
        index = torch.where(sizes == s, subset_sum(weighted, superset=True), index)
    return index
