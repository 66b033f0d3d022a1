"""Mean, deviation and largest value of each feature, taken in one pass over batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 1e-6
"""A deviation up to this share of the mean, eight steps of float32, is rounding."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Moments of the rows seen so far, in float64.

    Attributes:
        rows: How many.
        mean: (d,).
        squares: (d,) sums of squared distances from the mean.
        max: (d,); -inf where there are no rows.
    """

    rows: int
    mean: Tensor
    squares: Tensor
    max: Tensor

    @classmethod
    def none(cls, features: int) -> Statistics:
        """Of no rows."""
        zeros = torch.zeros(features, dtype=torch.float64)
        return cls(0, zeros, zeros, zeros - torch.inf)

    @property
    def std(self) -> Tensor:
        """(d,) population standard deviation: sqrt(squares / rows)."""
        return (self.squares / self.rows).sqrt()

    @property
    def constant(self) -> Tensor:
        """(d,) bool: the deviation is rounding, at most `ROUNDING` times the mean's size."""
        return self.std <= ROUNDING * self.mean.abs()

    def and_of(self, values: Tensor) -> Statistics:
        """Of these rows and ``values`` (n, d), n > 0, together.

        The two means and sums of squares are merged as by Chan, Golub and LeVeque (1979): no difference of large sums
        is taken, so nothing is lost where the mean is far larger than the deviation.
        """
        values = values.double()
        mean = values.mean(0)
        squares = (values - mean).square().sum(0)
        n, total = len(values), self.rows + len(values)
        step = mean - self.mean
        return Statistics(
            total,
            self.mean + step * (n / total),
            self.squares + squares + step.square() * (self.rows * n / total),
            torch.maximum(self.max, values.amax(0)),
        )
