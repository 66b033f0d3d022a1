"""The published way to split a game: gradient descent with momentum on the sum of sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from pyinterp.ops.subset_sum import subset_sum


def descend(values: Tensor, bound: Tensor, steps: int, learning_rate: float) -> tuple[Tensor, Tensor]:
    """Run the recipe on games (games, 2^n) with `bound` (games,); AND and OR effects (games, 2^n).

    v_and = (v + q) / 2 + p and v_or = (v + q) / 2 - p start from p = q = 0; each step follows the subgradient of the
    sum of sizes with momentum 0.9, at a learning rate that falls from `learning_rate` to a tenth of it on a log scale,
    and clips q to the bound. q(∅) stays 0.

    Source: the hyper-parameters of Li and Zhang, "Does a Neural Network Really Encode Symbolic Concepts?", ICML 2023.
    """
    offset, bound = values[:, :1], bound[:, None]
    goal = values - offset
    p, q = torch.zeros_like(goal), torch.zeros_like(goal)
    speed_p, speed_q = torch.zeros_like(goal), torch.zeros_like(goal)
    for step in range(steps):
        and_, or_ = _effects(goal, p, q)
        # The slopes by v_and and v_or: the transposed transforms of the signs.
        slope_and = subset_sum(and_.sign(), inverse=True, superset=True)
        slope_or = -subset_sum(or_.sign(), inverse=True, superset=True).flip(-1)
        speed_p = 0.9 * speed_p + slope_and - slope_or
        speed_q = 0.9 * speed_q + (slope_and + slope_or) / 2
        rate = learning_rate * 0.1 ** (step / max(1, steps - 1))
        p = p - rate * speed_p
        q = (q - rate * speed_q).clamp(-bound, bound)
        q[:, 0] = 0
    and_, or_ = _effects(goal, p, q)
    and_[:, :1] = offset
    return and_, or_


def _effects(goal: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """AND and OR effects of the non-empty subsets, 0 for the empty one."""
    half = (goal + q) / 2
    and_ = subset_sum(half + p, inverse=True)
    or_ = -subset_sum((half - p).flip(-1), inverse=True)
    and_[:, 0] = or_[:, 0] = 0
    return and_, or_
