"""Minibatch SAGA, as in the paper: for rows that can be read only a few times."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyinterp.elastic.inner import Metric
from pyinterp.elastic.penalty import Penalty
from pyinterp.elastic.rows import Chunk, Rows
from pyinterp.elastic.solver import Solution

BATCH = 256
EPOCHS = 5  # between two looks at the violation, each of which costs a pass


def solve_by_saga(
    rows: Rows,
    metric: Metric,
    penalty: Penalty,
    weights: Tensor,
    bias: Tensor,
    curvature: float,
    tolerance: float,
    max_passes: int,
    seed: int,
) -> Solution:
    """Minimise mean loss + penalty by proximal steps along averaged gradients of minibatches (Defazio et al., 2014).

    For every row the derivatives of its loss by its K logits at its last visit are kept, and their products with the
    features in one average; a step replaces the batch's part of it. The step length is 1 / (4 L), L the expected
    smoothness of a batch of b among n rows, (n (b - 1) L_all + (n - b) L_one) / (b (n - 1)), with the curvature
    L_all of the mean loss and the largest one of a single row, L_one (Gazagnadou, Gower and Salmon, 2019). The rows
    of a chunk are visited in random order. The arguments are those of `solve`; ``seed`` fixes the order.
    """
    generator = torch.Generator().manual_seed(seed)
    at = rows.gradient(weights, bias)
    best = Solution(weights, bias, at, math.inf, math.inf, 1, curvature)
    table: dict[int, Tensor] = {}
    average, lift = torch.zeros_like(weights), torch.zeros_like(bias)
    step = 1 / (4 * _smoothness(rows, metric))
    passes = 1
    while True:
        violation = penalty.violation(weights, at.weights, at.bias)
        if violation < best.violation:
            objective = at.loss + penalty.value(weights)
            best = Solution(weights, bias, at, violation, objective, passes, curvature)
        if violation <= tolerance or passes >= max_passes:
            break
        for _ in range(min(EPOCHS, max_passes - passes)):
            for number, chunk in enumerate(rows.chunks()):
                kept = table.setdefault(number, chunk.features.new_zeros(len(chunk.features), len(bias)))
                for part in torch.randperm(len(chunk.features), generator=generator).split(BATCH):
                    part = part.to(chunk.features.device)
                    weights, bias = _visit(
                        rows, chunk, part, kept, average, lift, weights, bias, step, penalty
                    )
            passes += 1
        at = rows.gradient(weights, bias)
        passes += 1
    return Solution(
        best.weights, best.bias, best.gradient, best.violation, best.objective, passes, best.curvature
    )


def _visit(
    rows: Rows,
    chunk: Chunk,
    part: Tensor,
    kept: Tensor,
    average: Tensor,
    lift: Tensor,
    weights: Tensor,
    bias: Tensor,
    step: float,
    penalty: Penalty,
) -> tuple[Tensor, Tensor]:
    z, count = chunk.features[part], len(part)
    residual = torch.addmm(bias, z, weights.T)
    rows.family.residual_(
        residual, chunk.labels[part], None if chunk.weights is None else chunk.weights[part]
    )
    news = residual - kept[part]
    kept[part] = residual
    slope, rise = news.T @ z, news.sum(0)
    weights, _ = penalty.step(weights, slope / count + average, weights, step, 0.0)
    bias = bias - step * (rise / count + lift)
    average += slope / rows.count
    lift += rise / rows.count
    return weights, bias


def _smoothness(rows: Rows, metric: Metric) -> float:
    count, batch = rows.count, min(BATCH, rows.count)
    largest = 0.0
    for chunk in rows.chunks():
        squares = chunk.features.square().sum(1) + 1
        squares = squares if chunk.weights is None else squares * chunk.weights
        largest = max(largest, float(squares.max()))
    together = max(metric.spectral_norm(), rows.mass)
    expected = count * (batch - 1) * together + (count - batch) * largest
    return rows.family.curvature * expected / (batch * max(count - 1, 1))
