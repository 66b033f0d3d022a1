"""One point of a path: proximal steps in the metric of the Gram matrix, and Newton steps where they are too slow."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyinterp.elastic.inner import Metric
from pyinterp.elastic.newton import newton_step
from pyinterp.elastic.penalty import Penalty
from pyinterp.elastic.rows import Gradient, Rows
from pyinterp.elastic.shift import best_shift

REMEMBERED = 8  # objectives, of which the worst is the one that a step must beat
SUFFICIENT = 1e-4  # share of the model's decrease that is enough
INNER = 0.1  # share of the present violation to which the model problem is solved
FLATTEST = 1e-6  # smallest curvature in units of the family's bound
PATIENCE = 12  # proximal steps before the first Newton step
BETWEEN = 4  # proximal steps between Newton steps, which find the support of the next
ROUNDS = 5  # most Newton steps in a row: each leaves out the weights that changed their sign in the last
WORTH = 1e-6  # share of the objective by which it must fall for one more of them
MOST_PRODUCTS = 60  # with the Hessian in one Newton step
STALLED = 60  # steps without a smaller violation: the numbers' precision is used up


@dataclass(frozen=True)
class Solution:
    """A head at one lambda.

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

    A proximal step minimises the loss's linear model + c / 2 * ||change||^2 in the metric of the rows' Gram matrix,
    which all classes share, + penalty; it costs one pass over the rows. c is the curvature that the last step saw
    (Barzilai and Borwein, 1988), doubled until the objective is below the worst of the last few (Grippo, Lampariello
    and Lucidi, 1986; with a penalty: Wright, Nowak and Figueiredo, 2009). At the family's bound of the curvature every
    step goes down (Böhning, 1992), so the search for c ends. Where this has not ended after a few steps, Newton steps
    on the support are put between (not for grouped penalties, nor for squared errors, whose metric is exact). A search
    whose violation falls no more, as that of float32 far below 1e-4, ends with the best that it had.

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
    search = _Search(rows, metric, penalty, weights, bias, curvature)
    newton = not penalty.grouped and not rows.family.quadratic
    steps = PATIENCE
    while search.best.violation > tolerance and search.passes < max_passes and search.idle < STALLED:
        search.proximal_step(tolerance, max_passes)
        steps -= 1
        if newton and not steps and search.best.violation > tolerance:
            search.newton_steps(tolerance, max_passes)
            steps = BETWEEN
    return replace(search.best, passes=search.passes, curvature=search.curvature)


class _Search:
    """Where a search stands: the present head, the best so far, how long ago that was, and the last curvature."""

    def __init__(
        self, rows: Rows, metric: Metric, penalty: Penalty, weights: Tensor, bias: Tensor, curvature: float
    ) -> None:
        self._rows, self._metric, self._penalty = rows, metric, penalty
        self._noise = 2 * torch.finfo(weights.dtype).eps
        self.passes, self.curvature, self.idle = 0, curvature, 0
        self.here = self.best = self._look(weights, bias)
        self._recent = deque([self.here.objective], REMEMBERED)

    def proximal_step(self, tolerance: float, max_passes: int) -> None:
        """Move to a point below the worst of the last few."""
        here, at, bound = self.here, self.here.gradient, self._rows.family.curvature
        aim = max(INNER * min(here.violation, 1.0), INNER * tolerance) * self._penalty.unit
        exact = self._rows.family.quadratic
        curvature = bound if exact else min(max(self.curvature, FLATTEST * bound), bound)
        while True:
            moved = self._metric.minimise(here.weights, at.weights, curvature, self._penalty, aim)
            there = self._look(moved, here.bias - at.bias / (curvature * self._rows.mass))
            change, lift = there.weights - here.weights, there.bias - here.bias
            length = self._metric.square(change) + self._rows.mass * float(lift.double().square().sum())
            wanted = max(self._recent) - SUFFICIENT * curvature / 2 * length
            low = there.objective <= wanted + self._noise * abs(here.objective)
            if low or curvature >= bound or self.passes >= max_passes:
                break
            curvature = min(2 * curvature, bound)
        seen = float(((there.gradient.weights - at.weights) * change).sum(dtype=torch.float64))
        seen += float(((there.gradient.bias - at.bias) * lift).sum(dtype=torch.float64))
        self.curvature = seen / length if length > 0 else bound
        self._go(there)

    def newton_steps(self, tolerance: float, max_passes: int) -> None:
        """Newton steps as long as they go down well."""
        for _ in range(ROUNDS):
            before = self.here.objective
            self._newton_step(max_passes)
            falls = self.here.objective < before - WORTH * abs(before)
            if not falls or self.best.violation <= tolerance:
                return

    def _newton_step(self, max_passes: int) -> None:
        """Move along the Newton direction as far as that goes down; weights that would change sign become zero."""
        here = self.here
        most = min(MOST_PRODUCTS, max_passes - self.passes)
        change, lift, used = newton_step(
            self._rows, self._metric, self._penalty, here.weights, here.bias, here.gradient, most
        )
        self.passes += used
        signs = torch.where(here.weights != 0, here.weights, -here.gradient.weights)
        for length in _lengths(here.weights, change):
            if self.passes >= max_passes:
                return
            moved = here.weights + length * change
            moved = torch.where(moved * signs > 0, moved, 0.0)
            there = self._look(moved, here.bias + length * lift)
            if there.objective <= here.objective + self._noise * abs(here.objective):
                self._go(there)
                return

    def _look(self, weights: Tensor, bias: Tensor) -> Solution:
        if self._rows.family.shifts:
            weights = best_shift(weights, self._penalty)
        gradient = self._rows.gradient(weights, bias)
        self.passes += 1
        violation = self._penalty.violation(weights, gradient.weights, gradient.bias)
        objective = gradient.loss + self._penalty.value(weights)
        return Solution(weights, bias, gradient, violation, objective, self.passes, self.curvature)

    def _go(self, there: Solution) -> None:
        self.here = there
        self._recent.append(there.objective)
        self.idle += 1
        if there.violation < self.best.violation:
            self.best, self.idle = there, 0


def _lengths(weights: Tensor, change: Tensor) -> list[float]:
    """What to try of a change: all of it, a half, a quarter; and at last as much as brings the first weight to zero."""
    ratio = torch.where(weights * change < 0, -weights / change, torch.inf)
    first = float(ratio.min()) * (1 + torch.finfo(weights.dtype).eps)
    return [1.0, 0.5, 0.25, first] if first < 0.25 else [1.0, 0.5, 0.25]
