"""Weighted ridge regression in closed form: what LIME fits to the answers of a network on masked inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from pyinterp.features.statistics import ROUNDING


def weighted_ridge(inputs: Tensor, targets: Tensor, weights: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Slopes B of targets on inputs, and how much of the targets' variance they explain.

    Minimises over a, B: sum_s w_s |y_s - a - B^T x_s|^2 + ridge |B|^2. Equivalent to scikit-learn's
    ``Ridge(alpha=ridge).fit(inputs, targets, sample_weight=weights)``.

    Args:
        inputs: (S, n) float64.
        targets: (S, m) float64.
        weights: (S,) float64, above 0.
        ridge: Above 0.

    Returns:
        B (n, m), and weighted R^2 (m,), 1 for targets that do not vary.
    """
    shares = (weights / weights.sum())[:, None]
    mean = (shares * targets).sum(0)
    x, y = inputs - (shares * inputs).sum(0), targets - mean
    weighted = (weights[:, None] * x).T
    slopes = torch.linalg.solve(weighted @ x + ridge * torch.eye(x.shape[1]).to(x), weighted @ y)
    left, total = (shares * (y - x @ slopes).square()).sum(0), (shares * y.square()).sum(0)
    return slopes, torch.where(total.sqrt() > ROUNDING * mean.abs(), 1 - left / total, 1.0)
