"""The model problem of one step: the elastic net with a Gram matrix, where no row of the data is read."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyinterp import ops
from pyinterp.elastic.penalty import Penalty

MOST_SWEEPS = 1000
LOOK_EVERY = 8  # steps between two looks at the change, each of which waits for a GPU


class Metric:
    """||D||^2 = trace(D G D^T) for D (K, d), and the minimiser of an elastic net in it.

    Args:
        gram: (d, d), the mean of z z^T.
    """

    def __init__(self, gram: Tensor) -> None:
        self.gram = gram
        self._largest: float | None = None

    def square(self, change: Tensor) -> float:
        """The squared length of a change (K, d)."""
        return float(((change @ self.gram) * change).sum(dtype=torch.float64))

    def minimise(
        self, start: Tensor, gradient: Tensor, curvature: float, penalty: Penalty, tolerance: float
    ) -> Tensor:
        """Minimise <gradient, W - start> + curvature / 2 * ||W - start||^2 + penalty(W) over W (K, d).

        Single weights go one at a time on the CPU, with updates of the gradient through the Gram matrix; on a GPU,
        and where features are used by all classes or by none, all take accelerated proximal gradient steps at once.

        Args:
            start: (K, d).
            gradient: (K, d).
            curvature: Factor of the metric.
            penalty: At one lambda.
            tolerance: Largest remaining violation of the optimality conditions of this model, in gradient units.
        """
        if start.device.type == "cpu" and not penalty.grouped:
            linear = start @ self.gram - gradient / curvature
            weights, _ = ops.gram_descent(
                linear,
                self.gram,
                start,
                penalty.l1 / curvature,
                penalty.l2 / curvature,
                tolerance / curvature,
                MOST_SWEEPS,
            )
            return weights
        return self._accelerated(start, gradient, curvature, penalty, tolerance)

    def _accelerated(
        self, start: Tensor, gradient: Tensor, curvature: float, penalty: Penalty, tolerance: float
    ) -> Tensor:
        step = 1 / (curvature * self.spectral_norm())
        weights = ahead = start
        inertia = 1.0
        for count in range(1, MOST_SWEEPS + 1):
            following = (1 + math.sqrt(1 + 4 * inertia * inertia)) / 2
            slope = torch.addmm(gradient, ahead - start, self.gram, alpha=curvature)
            moved, carried = penalty.step(ahead, slope, weights, step, (inertia - 1) / following)
            if count % LOOK_EVERY == 0:
                if float((moved - ahead).abs().max()) / step <= tolerance:
                    return moved
                if (
                    float(((ahead - moved) * (moved - weights)).sum()) > 0
                ):  # the momentum points uphill: start anew
                    following, carried = 1.0, moved
            weights, ahead, inertia = moved, carried, following
        return weights

    def spectral_norm(self) -> float:
        """The largest eigenvalue of G."""
        if self._largest is None:
            largest = float(torch.linalg.eigvalsh(self.gram)[-1])
            self._largest = max(largest, torch.finfo(self.gram.dtype).tiny)
        return self._largest
