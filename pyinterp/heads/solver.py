"""One point of a path: proximal steps in the metric of the Gram matrix, each as long as the last one was curved."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.heads.inner import Metric
from pyinterp.heads.penalty import Penalty
from pyinterp.heads.rows import Gradient, Rows

REMEMBERED = 8  # objectives, of which the worst is the one that a step must beat
SUFFICIENT = 1e-4  # share of the model's decrease that is enough
INNER = 0.1  # share of the present violation to which the model problem is solved
FLATTEST = 1e-6  # smallest curvature in units of the family's bound


@dataclass(frozen=True)
class Solution:
    """The best head that was found at one lambda.

    Attributes:
        weights: (K, d).
        bias: (K,).
        gradient: Of the loss there.
        violation: See `Penalty.violation`.
        objective: Mean loss and penalty.
        passes: How often all rows were read.
        curvature: Of the last step, a start for the next point.
    """

    weights: Tensor
    bias: Tensor
    gradient: Gradient
    violation: float
    objective: float
    passes: int
    curvature: float


def solve(
    rows: Rows,
    metric: Metric,
    penalty: Penalty,
    weights: Tensor,
    bias: Tensor,
    curvature: float,
    tolerance: float,
    max_passes: int,
) -> Solution:
    """Minimise mean loss + penalty over weights (K, d) and biases (K,).

    Every step minimises the loss's linear model + c / 2 * ||change||^2 in the metric of the rows' Gram matrix, which
    all classes share, + penalty; it costs one pass over the rows. c is the curvature that the last step saw
    (Barzilai and Borwein, 1988), doubled until the objective is below the worst of the last few (Grippo, Lampariello
    and Lucidi, 1986; with a penalty: Wright, Nowak and Figueiredo, 2009). At the family's bound of the curvature every
    step goes down (Böhning, 1992), so the search for c ends.

    Args:
        rows: Centred: the mean of weight * z is 0 for each feature.
        metric: Of the same rows.
        penalty: At one lambda.
        weights: (K, d), where to start.
        bias: (K,), where to start.
        curvature: Where to start, in (0, rows.family.curvature].
        tolerance: Largest violation, see `Penalty.violation`.
        max_passes: End there, also without reaching the tolerance.
    """
    bound = rows.family.curvature
    at = rows.gradient(weights, bias)
    objective = at.loss + penalty.value(weights)
    noise = 2 * torch.finfo(weights.dtype).eps
    recent = deque([objective], REMEMBERED)
    violation = penalty.violation(weights, at.weights, at.bias)
    best = Solution(weights, bias, at, violation, objective, 1, curvature)
    passes = 1
    while best.violation > tolerance and passes < max_passes:
        aim = max(INNER * min(violation, 1.0), INNER * tolerance) * penalty.unit
        curvature = bound if rows.family.quadratic else min(max(curvature, FLATTEST * bound), bound)
        while True:
            moved = metric.minimise(weights, at.weights, curvature, penalty, aim)
            lifted = bias - at.bias / (curvature * rows.mass)
            change, lift = moved - weights, lifted - bias
            length = metric.square(change) + rows.mass * float(lift.double().square().sum())
            there = rows.gradient(moved, lifted)
            passes += 1
            reached = there.loss + penalty.value(moved)
            enough = max(recent) - SUFFICIENT * curvature / 2 * length + noise * abs(objective)
            if reached <= enough or curvature >= bound or passes >= max_passes:
                break
            curvature = min(2 * curvature, bound)
        seen = float(((there.weights - at.weights) * change).sum(dtype=torch.float64))
        seen += float(((there.bias - at.bias) * lift).sum(dtype=torch.float64))
        weights, bias, at, objective = moved, lifted, there, reached
        recent.append(objective)
        violation = penalty.violation(weights, at.weights, at.bias)
        if violation < best.violation:
            best = Solution(weights, bias, at, violation, objective, passes, curvature)
        curvature = seen / length if length > 0 else bound
    return Solution(
        best.weights, best.bias, best.gradient, best.violation, best.objective, passes, best.curvature
    )
