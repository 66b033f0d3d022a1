"""Weighted mean and deviation of each feature."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyinterp.features.statistics import ROUNDING

AT_ONCE = 1 << 23  # bytes in float64, which caches hold


def moments(features: Tensor, weights: Tensor | None, index: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of the columns, each row as often as its weight says.

    The rows are read twice: first for the means, then for the squared distances from them.

    Args:
        features: (N, d).
        weights: (N,) float64, or None.
        index: (n,) which rows, or None for all.

    Returns:
        Two (d,) float64 tensors on the CPU; the deviation is 0 for a feature that is constant up to rounding.
    """
    count = len(features) if index is None else len(index)
    height = max(1, AT_ONCE // (8 * features.shape[1]))

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, count, height):
            rows: slice | Tensor = slice(start, start + height)
            rows = rows if index is None else index[rows]
            values = features[rows].to("cpu", torch.float64)
            yield values, torch.ones(len(values)).double() if weights is None else weights[rows]

    mean = torch.zeros(features.shape[1], dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for values, weight in parts():
        mean += weight @ values
        total += weight.sum()
    mean /= total
    squares = torch.zeros_like(mean)
    for values, weight in parts():
        squares += weight @ (values - mean).square()
    std = (squares / total).sqrt()
    return mean, torch.where(std > ROUNDING * mean.abs(), std, 0.0)
