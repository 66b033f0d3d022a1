"""What is asked of interactions as a whole: strength by order, noise floors, rank, and how few rebuild the scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.interactions.harsanyi import reconstruct
from pyinterp.interactions.subsets import subset_sizes

DENSE, POINTS = 32, 64
ROOM = 1 << 22


@dataclass(frozen=True)
class ErrorCurve:
    """How well the strongest interactions rebuild the scores.

    Attributes:
        counts: How many are kept, the strongest first; from 0 to all.
        errors: For each count the relative error, see `error_curve`.
    """

    counts: tuple[int, ...]
    errors: tuple[float, ...]


def strength_by_order(effects: Tensor) -> Tensor:
    """(..., 2^n) -> (..., n+1) float64: the sum of |I(S)| over the subsets of each size.

    Equivalent to ``stack([effects[..., subset_sizes(n) == m].abs().sum(-1) for m in range(n + 1)], -1)``.
    """
    sizes = subset_sizes(_players(effects), effects.device)
    total = torch.zeros(*effects.shape[:-1], int(sizes[-1]) + 1, dtype=torch.float64, device=effects.device)
    return total.index_add_(-1, sizes, effects.abs().double())


def noise_floor(sigma: float, players: int) -> Tensor:
    """(n+1,) float64: how large an interaction of each order noise alone makes.

    I(S) is a sum of 2^|S| scores with signs: independent errors of standard deviation sigma in the scores give it one
    of sigma 2^(|S|/2). The largest of the 2 * 2^n effects is about sqrt(2 ln(2 * 2^n)) times that (the universal
    threshold of Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994):
    floor[m] = sigma 2^(m/2) sqrt(2 ln(2^(n+1))).
    """
    if not (sigma >= 0 and math.isfinite(sigma)):
        fix = "Pass the standard deviation of the error of one score."
        raise ValueError(explain("noise_floor", "sigma >= 0", sigma, fix))
    largest = math.sqrt(2 * math.log(2.0) * (players + 1))
    return sigma * largest * 2.0 ** (torch.arange(players + 1, dtype=torch.float64) / 2)


def rank(and_: Tensor, or_: Tensor) -> Tensor:
    """(m,) int64: the effects of non-empty subsets that are not zero, the strongest first.

    A position p < 2^n is AND of subset p, any other is OR of subset p - 2^n. Ties: AND first, then the smaller index.
    """
    size = 1 << _players(and_)
    strengths = torch.cat([and_, or_]).abs()
    strengths[[0, size]] = 0
    order = strengths.sort(descending=True, stable=True).indices
    return order[: int(strengths.count_nonzero())]


def error_curve(values: Tensor, and_: Tensor, or_: Tensor, counts: Sequence[int] | None = None) -> ErrorCurve:
    """How well the k strongest effects rebuild the scores of all subsets, for many k.

    error(k) = sqrt(mean_T (v_k(T) - v(T))^2) / sqrt(mean_T (v(T) - v(empty))^2), with v_k the reconstruction from the
    k strongest effects and the constant. Each k costs one subset sum, O(n 2^n); there is no matrix.

    Args:
        values: (2^n,) the scores.
        and_: (2^n,) AND effects.
        or_: (2^n,) OR effects.
        counts: The k to look at; by default all up to 32, and 64 more evenly spaced in their logarithm up to all.
    """
    ranked = rank(and_, or_)
    if counts is None:
        counts = _spread(len(ranked))
    wrong = [count for count in counts if not 0 <= count <= len(ranked)]
    if wrong:
        fix = "Ask for a number in this range."
        raise ValueError(explain("error_curve", f"counts from 0 to {len(ranked)}", wrong[0], fix))
    size = len(values)
    exact, parts = values.double(), torch.stack([and_, or_]).double()
    scale = float((exact - exact[0]).square().mean().sqrt())
    place = torch.full((2 * size,), len(ranked), dtype=torch.int64, device=values.device)
    place[ranked] = torch.arange(len(ranked), device=values.device)
    place[[0, size]] = -1  # the constant is always there
    errors: list[float] = []
    rows = max(1, ROOM // (2 * size))
    for start in range(0, len(counts), rows):
        kept = torch.tensor(counts[start : start + rows], device=values.device)
        chosen = parts * (place < kept[:, None]).view(-1, 2, size)
        rebuilt = reconstruct(chosen[:, 0].contiguous(), chosen[:, 1].contiguous())
        errors += (rebuilt - exact).square().mean(-1).sqrt().tolist()
    return ErrorCurve(tuple(counts), tuple(error / scale if scale else error for error in errors))


def _spread(total: int) -> list[int]:
    """Counts from 0 to ``total``: all small ones, then evenly spaced in their logarithm."""
    first = min(total, DENSE)
    steps = torch.logspace(math.log10(max(first, 1)), math.log10(max(total, 1)), POINTS, dtype=torch.float64)
    return sorted({*range(first + 1), *steps.round().long().clamp(first, total).tolist()})


def _players(effects: Tensor) -> int:
    return effects.shape[-1].bit_length() - 1
