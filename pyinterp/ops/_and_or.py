"""Sparse AND and OR effects of a game, in plain torch: the slow form of the kernel, and the form for other norms.

    minimise  norm(a, o)  over a, o:  |sum over S ⊆ T of a(S) + sum over S meeting T of o(S) - w(T)| <= bound, T ≠ ∅

with w = v - v(∅) and S ≠ ∅. It alternates between the proximal step of the norm and the bound, and the exact projection
onto the linear equations (Douglas-Rachford splitting), whose inverse is applied in the Schur basis; the fixed point is
approached by Halpern's iteration with restarts, and a restart also weighs primal against dual steps, as solvers for
large linear programs do (Lu and Yang, "Restarted Halpern PDHG for Linear Programming", 2024; Applegate et al.,
"Practical Large-Scale Linear Programming using Primal-Dual Hybrid Gradient", NeurIPS 2021; the thresholds 0.2, 0.8 and
0.36 of a restart are theirs).

Every CHECK iterations, the sparse point is repaired to a feasible one, which bounds the optimum from above, and the
multiplier is scaled to a feasible one of the dual problem, which bounds it from below. The iteration keeps off the
bound by a small share of it, which costs at most half of the tolerance, so that in the end the sparse point is feasible
as it is: its zeros are zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pyinterp.ops._schur import Schur, apply_blocks, inverse_gram, rotate, schur
from pyinterp.ops.subset_sum import subset_sum

CHECK = 25  # iterations between two certificates


def slack_of(n: int) -> float:
    """The weight of the noise term against the effects in the projection: what converged fastest at n = 8, 10, 12."""
    return 2 ** (n / 2) / 4


class Norm(Protocol):
    """What is minimised: a norm of the effects x (2, games, 2^n), of AND and OR."""

    def shrink(self, x: Tensor, step: Tensor) -> Tensor:
        """Proximal step: argmin over z of step * norm(z) + \\|z - x\\|^2 / 2."""

    def value(self, x: Tensor) -> Tensor:
        """The norm, a scalar."""

    def dual(self, slope: Tensor) -> Tensor:
        """The smallest c such that slope / c is a subgradient of the norm at 0, a scalar."""


class SumOfSizes:
    """The sum of all \\|effects\\|."""

    def shrink(self, x: Tensor, step: Tensor) -> Tensor:
        return torch.nn.functional.softshrink(x, float(step))

    def value(self, x: Tensor) -> Tensor:
        return x.abs().sum()

    def dual(self, slope: Tensor) -> Tensor:
        return slope.abs().max()


class SumOfLargest:
    """Sum over S of (1 - private) max over the games of \\|effect\\| + private times the sum over the games."""

    def __init__(self, private: float) -> None:
        self.private = private

    def shrink(self, x: Tensor, step: Tensor) -> Tensor:
        x = torch.nn.functional.softshrink(x, self.private * float(step))
        return x - _onto_ball(x, (1 - self.private) * step)  # Moreau: what is left is the step of the largest

    def value(self, x: Tensor) -> Tensor:
        sizes = x.abs()
        return ((1 - self.private) * sizes.amax(1) + self.private * sizes.sum(1)).sum()

    def dual(self, slope: Tensor) -> Tensor:
        sums = slope.abs().sort(dim=1, descending=True).values.cumsum(1)
        count = torch.arange(1, slope.shape[1] + 1, device=slope.device, dtype=slope.dtype)
        return (sums / (1 - self.private + self.private * count)[:, None]).amax()


def _onto_ball(x: Tensor, radius: Tensor) -> Tensor:
    """Project x along dimension 1 onto the vectors whose sizes sum to at most `radius`."""
    sizes = x.abs().sort(dim=1, descending=True).values
    count = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)[:, None]
    cut = ((sizes.cumsum(1) - radius) / count).amax(1, keepdim=True).clamp(min=0)
    return x.sign() * (x.abs() - cut).clamp(min=0)


class Solution(NamedTuple):
    """Effects x (2, games, 2^n), their norm, a lower bound of what any effects can reach, and the iterations taken."""

    effects: Tensor
    objective: float
    lower_bound: float
    iterations: int


def solve(values: Tensor, bound: Tensor, norm: Norm, tolerance: float, max_iterations: int) -> Solution:
    """Solve for games that share one norm: `values` (games, 2^n) float64, `bound` (games,) float64."""
    n = values.shape[-1].bit_length() - 1
    goal, bound = values - values[:, :1], bound[:, None]
    best = torch.zeros(2, *goal.shape, dtype=goal.dtype, device=goal.device)
    if bool((goal.abs() <= bound).all()):
        return Solution(best, 0.0, 0.0, 0)

    basis = Schur(*(table.to(goal.device) for table in schur(n)))
    slack = slack_of(n) if bool((bound > 0).any()) else 0.0
    inverse, repair = (inverse_gram(n, s).to(goal.device) for s in (slack, 0.0))
    root = slack**0.5
    unused = tolerance / 2  # share of the bound

    def invert(residual: Tensor, blocks: Tensor) -> Tensor:
        found = rotate(apply_blocks(rotate(residual, basis), basis, blocks), basis, back=True)
        found[:, 0] = 0
        return found

    def near(y: Tensor, step: Tensor) -> Tensor:
        width = (1 - min(unused, 0.1)) * bound / root if slack else bound
        return torch.cat([norm.shrink(y[:2], step), y[2:].clamp(-width, width)])

    effects = pull(invert(goal, repair))
    step = effects.abs().mean()
    most = (step / 30, step * 30)
    y = torch.cat([effects, torch.zeros_like(goal)[None]])
    anchor, since, first, last = y, 0, goal.new_zeros(()), goal.new_zeros(())
    objective, lower, iteration, proven = float("inf"), 0.0, 0, 0
    for iteration in range(1, max_iterations + 1):
        z = near(y, step)
        checked = iteration % CHECK == 0 or iteration == max_iterations
        if checked:
            sparse = z[:2]
            found = _repaired(sparse, goal, bound, lambda missing: pull(invert(missing, repair)))
            now = float(norm.value(found))
            if now < objective:
                best, objective = found, now
        ahead = 2 * z - y
        multiplier = invert(goal - fit(ahead[:2]) + root * ahead[2], inverse)
        slope = pull(multiplier)
        if checked:
            scale = torch.maximum(norm.dual(slope), step)
            worth = float((bound * multiplier.abs()).sum())  # of the bound
            gained = float((goal * multiplier).sum()) - worth
            lower = max(lower, gained / float(scale))
            if gained > 0 and worth > 0:
                unused = tolerance * min(1.0, gained / (2 * worth))
            if found is sparse and now - lower <= tolerance * now:
                best, objective = found, now
                break
            if objective - lower <= tolerance * objective:
                proven = proven or iteration
                if not slack or iteration >= 2 * proven:
                    break
        move = z - y + torch.cat([slope, -root * multiplier[None]])
        length = move.norm()
        if since == 0:
            first = length
        elif length <= 0.2 * first or last < length <= 0.8 * first or since > max(50, 0.36 * iteration):
            start = near(anchor, step)
            primal, dual = (z - start).norm(), ((y - z) - (anchor - start)).norm() / step
            better = (primal / dual * step).sqrt().clamp(*most) if primal > 0 and dual > 0 else step
            anchor = y = z + (y - z) * (better / step)
            step, since = better, 0
            continue
        y = ((since + 1) * (y + 2 * move) + anchor) / (since + 2)
        since, last = since + 1, length
    return Solution(best, objective, lower, iteration)


def fit(effects: Tensor) -> Tensor:
    """What effects (2, games, 2^n) without the empty set's give at every subset: (games, 2^n)."""
    a, o = effects
    given = subset_sum(a) + o.sum(-1, keepdim=True) - subset_sum(o).flip(-1)
    given[:, 0] = 0
    return given


def pull(multiplier: Tensor) -> Tensor:
    """The transpose of `fit`."""
    total = multiplier.sum(-1, keepdim=True)
    slope = torch.stack([subset_sum(multiplier, superset=True), total - subset_sum(multiplier).flip(-1)])
    slope[..., 0] = 0
    return slope


def _repaired(effects: Tensor, goal: Tensor, bound: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    """The nearest effects within the bound of the goal: the given ones themselves if they are.

    Twice, because the first projection rounds.
    """
    for time in range(2):
        off = fit(effects) - goal
        missing = off.clamp(-bound, bound) - off
        if time == 0 and bool((bound > 0).any()) and not bool(missing.any()):
            return effects
        effects = effects + project(missing)
    return effects
