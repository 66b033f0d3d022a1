"""The elastic-net penalty of one point of a path, element by element or feature by feature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp import ops


@dataclass(frozen=True)
class Penalty:
    """lambda * (alpha * norm(W) + (1 - alpha) / 2 * ||W||_F^2) for weights W (K, d); biases are never penalised.

    norm(W) is the sum of all |W_kj|, or, grouped, the sum over features j of the length of the column W[:, j].

    Attributes:
        strength: lambda > 0.
        alpha: 0 to 1: how much of it is the norm that makes zeros.
        grouped: Whether a feature is used by all classes or by none.
    """

    strength: float
    alpha: float
    grouped: bool

    @property
    def l1(self) -> float:
        return self.strength * self.alpha

    @property
    def l2(self) -> float:
        return self.strength * (1 - self.alpha)

    @property
    def unit(self) -> float:
        """lambda * max(0.001, alpha): what violations are measured in; at lambda_max the largest gradient."""
        return self.strength * max(0.001, self.alpha)

    def value(self, weights: Tensor) -> float:
        """The penalty of weights (K, d)."""
        exact = weights.double()
        norm = exact.norm(dim=0).sum() if self.grouped else exact.abs().sum()
        return float(self.l1 * norm + self.l2 / 2 * exact.square().sum())

    def violation(self, weights: Tensor, gradient: Tensor, bias_gradient: Tensor) -> float:
        """How far a point is from optimal, in units of ``unit``: the largest distance of a gradient from -subgradient.

        Args:
            weights: (K, d).
            gradient: (K, d), of the loss without penalty.
            bias_gradient: (K,).
        """
        smooth = gradient + self.l2 * weights
        if self.grouped:
            length = weights.norm(dim=0)
            direction = weights / length.clamp_min(torch.finfo(weights.dtype).tiny)
            used = (smooth + self.l1 * direction).norm(dim=0)
            unused = (smooth.norm(dim=0) - self.l1).clamp_min(0)
            distances = torch.where(length > 0, used, unused)
        else:
            used = (smooth + self.l1 * weights.sign()).abs()
            unused = (smooth.abs() - self.l1).clamp_min(0)
            distances = torch.where(weights != 0, used, unused)
        worst = max(float(distances.max()), float(bias_gradient.abs().max()))
        return worst / self.unit

    def step(
        self, point: Tensor, gradient: Tensor, previous: Tensor, step: float, momentum: float
    ) -> tuple[Tensor, Tensor]:
        """One proximal gradient step from ``point``; the new weights, and those carried on by the momentum."""
        if not self.grouped:
            return ops.elastic_prox(point, gradient, previous, step, self.l1, self.l2, momentum)
        moved = point - step * gradient
        length = moved.norm(dim=0).clamp_min(torch.finfo(moved.dtype).tiny)
        weights = moved * ((1 - step * self.l1 / length).clamp_min(0) / (1 + step * self.l2))
        return weights, weights + momentum * (weights - previous)


def largest_strength(gradient: Tensor, alpha: float, grouped: bool) -> float:
    """lambda_max: the smallest lambda at which all weights are zero; gradient (K, d) of the loss at zero weights."""
    norms = gradient.norm(dim=0) if grouped else gradient.abs()
    return float(norms.max()) / max(0.001, alpha)
