"""Confidence intervals of effects over several draws of input noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyinterp.errors import explain

IntervalKind = Literal["mean", "draws"]


@dataclass(frozen=True)
class Intervals:
    """Of every effect, over k draws; all (..., 2, 2^n) float64: AND, then OR.

    Attributes:
        mean: Its mean.
        std: Its standard deviation from draw to draw, with k - 1.
        low: Lower end of the interval.
        high: Upper end.
        level: Coverage.
        kind: "mean" or "draws", see `intervals_of`.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    level: float
    kind: IntervalKind


def intervals_of(draws: Tensor, level: float = 0.95, kind: IntervalKind = "mean") -> Intervals:
    """Intervals of what ``draws`` (k, ...) holds for k draws.

    "mean" says where the mean effect over the noise lies: mean +- t std / sqrt(k), with t Student's quantile for k - 1
    degrees of freedom; it takes effects as roughly normal. "draws" says where the effect of one draw lies: between
    the (1 - level) / 2 and (1 + level) / 2 percentiles of the draws, without an assumption; with few draws these are
    close to the smallest and the largest.

    Args:
        draws: (k, ...), k >= 2.
        level: Coverage, in (0, 1).
        kind: See above.
    """
    count = len(draws)
    if count < 2:
        raise ValueError(explain("intervals", "at least 2 draws", count, "Ask for 10 or more."))
    if not 0 < level < 1:
        raise ValueError(explain("intervals", "a level in (0, 1)", level, "Try 0.95."))
    exact = draws.double()
    mean, std = exact.mean(0), exact.std(0)
    if kind == "mean":
        reach = t_quantile(level, count - 1) * std / math.sqrt(count)
        low, high = mean - reach, mean + reach
    elif kind == "draws":
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=draws.device)
        low, high = exact.quantile(ends, 0)
    else:
        raise ValueError(explain("intervals", 'kind "mean" or "draws"', repr(kind), "Choose one of them."))
    return Intervals(mean, std, low, high, level, kind)


def t_quantile(level: float, degrees: int) -> float:
    """The t with P(|T| < t) = level for Student's distribution with ``degrees`` degrees of freedom."""
    low, high = 0.0, 1.0
    while t_within(high, degrees) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if t_within(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return high


def t_within(t: float, degrees: int) -> float:
    """P(|T| < t), by the finite sums for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = total = (cosine if odd else 1.0) if degrees > 1 else 0.0
    for power in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
