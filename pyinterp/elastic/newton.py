"""One Newton step on the weights in use: where the curvature of the loss is far from that of the Gram matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from pyinterp.elastic.inner import Metric
from pyinterp.elastic.penalty import Penalty
from pyinterp.elastic.rows import Gradient, Rows

ENOUGH = 0.1  # share of the first residual, in the norm of the preconditioner, at which the equations count as solved
DAMPING = 1e-3  # of the Gram matrix's blocks, in units of their mean diagonal


class Blocks:
    """An approximate inverse of the Hessian on a support: for each class (spread_k G + l2 I) on its own features.

    Args:
        metric: With the Gram matrix G.
        spread: (K,) mean second derivatives of the loss by the logits.
        support: (K, d) bool.
        l2: Of the penalty.
    """

    def __init__(self, metric: Metric, spread: Tensor, support: Tensor, l2: float) -> None:
        self._spread = spread
        self._blocks = []
        for k, row in enumerate(support):
            used = row.nonzero()[:, 0]
            block = spread[k] * metric.gram[used][:, used]
            shift = l2 + DAMPING * float(block.diagonal().mean()) if len(used) else 0.0
            self._blocks.append((used, torch.linalg.cholesky(block + shift * torch.eye(len(used)).to(block))))

    def solve(self, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The product of the inverse with a change (K, d), (K,) of gradients."""
        solved = torch.zeros_like(weights)
        for k, (used, factor) in enumerate(self._blocks):
            solved[k, used] = torch.cholesky_solve(weights[k, used, None], factor)[:, 0]
        return solved, bias / self._spread


def newton_step(
    rows: Rows, metric: Metric, penalty: Penalty, weights: Tensor, bias: Tensor, at: Gradient, most: int
) -> tuple[Tensor, Tensor, int]:
    """The minimiser of the quadratic model of the objective over the support, signs kept as they are.

    The support are the non-zero weights, and those zeros whose gradient is above the threshold, which move against it.
    The equations are solved by conjugate gradients, preconditioned by `Blocks`; one product with the Hessian is a pass.

    Args:
        rows: Centred.
        metric: Of the same rows.
        penalty: Not grouped.
        weights: (K, d).
        bias: (K,).
        at: The gradient of the loss there.
        most: Passes that may be used.

    Returns:
        The changes (K, d) and (K,), and the passes that were used.
    """
    answers, spread = rows.answers(weights, bias)
    support = (weights != 0) | (at.weights.abs() > penalty.l1)
    signs = torch.where(weights != 0, weights.sign(), -at.weights.sign())
    blocks = Blocks(metric, spread.clamp_min(torch.finfo(spread.dtype).eps), support, penalty.l2)
    change, lift = torch.zeros_like(weights), torch.zeros_like(bias)
    slope = at.weights + penalty.l1 * signs + penalty.l2 * weights
    left = torch.where(support, -slope, 0.0)
    left_bias = -at.bias
    ahead, ahead_bias = blocks.solve(left, left_bias)
    size = first = _dot(left, left_bias, ahead, ahead_bias)
    passes = 1
    while passes < most and size > ENOUGH**2 * first:
        bent, bent_bias = rows.curve(answers, ahead, ahead_bias)
        bent = torch.where(support, bent + penalty.l2 * ahead, 0.0)
        passes += 1
        curvature = _dot(ahead, ahead_bias, bent, bent_bias)
        if not curvature > 0:
            break
        length = size / curvature
        change, lift = change + length * ahead, lift + length * ahead_bias
        left, left_bias = left - length * bent, left_bias - length * bent_bias
        solved, solved_bias = blocks.solve(left, left_bias)
        following = _dot(left, left_bias, solved, solved_bias)
        ahead = solved + following / size * ahead
        ahead_bias = solved_bias + following / size * ahead_bias
        size = following
    return change, lift, passes


def _dot(a: Tensor, a_bias: Tensor, b: Tensor, b_bias: Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64) + (a_bias * b_bias).sum(dtype=torch.float64))
