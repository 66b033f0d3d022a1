"""FISTA with backtracking: the readable reference for one point of a path."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyinterp.elastic.penalty import Penalty
from pyinterp.elastic.rows import Rows
from pyinterp.elastic.solver import Solution

SHRINK = 0.5  # of the step, where it was too long
GROW = 1.1  # of the step, from one iteration to the next


def solve_by_fista(
    rows: Rows,
    penalty: Penalty,
    weights: Tensor,
    bias: Tensor,
    curvature: float,
    tolerance: float,
    max_passes: int,
) -> Solution:
    """Minimise mean loss + penalty by accelerated proximal gradient steps (Beck and Teboulle, 2009).

    The step is shortened until the quadratic model at the extrapolated point is above the loss, and the momentum starts
    anew where it points uphill (O'Donoghue and Candès, 2015). The arguments are those of `solve`; ``curvature`` is
    the inverse of the first step.
    """
    ahead, ahead_bias, inertia, passes = weights, bias, 1.0, 0
    rounding = 2 * torch.finfo(weights.dtype).eps
    best = Solution(weights, bias, rows.gradient(weights, bias), math.inf, math.inf, 1, curvature)
    while True:
        at = rows.gradient(ahead, ahead_bias)
        passes += 1
        violation = penalty.violation(ahead, at.weights, at.bias)
        if violation < best.violation:
            objective = at.loss + penalty.value(ahead)
            best = Solution(ahead, ahead_bias, at, violation, objective, passes, curvature)
        if violation <= tolerance or passes >= max_passes:
            break
        curvature /= GROW
        while True:
            moved, _ = penalty.step(ahead, at.weights, ahead, 1 / curvature, 0.0)
            lifted = ahead_bias - at.bias / curvature
            change, lift = moved - ahead, lifted - ahead_bias
            slope = float((at.weights * change).sum(dtype=torch.float64) + (at.bias * lift).sum())
            length = float(change.double().square().sum() + lift.double().square().sum())
            there = rows.gradient(moved, lifted)
            passes += 1
            model = at.loss + slope + curvature / 2 * length
            if there.loss <= model + rounding * abs(at.loss) or passes >= max_passes:
                break
            curvature /= SHRINK
        if float(((ahead - moved) * (moved - weights)).sum()) > 0:
            inertia = 1.0
        following = (1 + math.sqrt(1 + 4 * inertia * inertia)) / 2
        momentum = (inertia - 1) / following
        ahead, ahead_bias = moved + momentum * (moved - weights), lifted + momentum * (lifted - bias)
        weights, bias, inertia = moved, lifted, following
    return Solution(
        best.weights, best.bias, best.gradient, best.violation, best.objective, passes, best.curvature
    )
