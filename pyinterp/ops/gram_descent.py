"""gram_descent: many elastic nets that share one Gram matrix, by cyclic coordinate descent."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.ops._common import register


def _reference(
    linear: Tensor,
    gram: Tensor,
    weights: Tensor,
    l1: float,
    l2: float,
    tolerance: float,
    max_sweeps: int,
) -> tuple[Tensor, Tensor]:
    diagonal = gram.diagonal()
    torch._assert_async((diagonal >= 0).all(), "the diagonal of the Gram matrix must not be negative")
    curvature = diagonal + l2
    flat = curvature == 0  # nothing to move along: these coordinates are zero
    weights = weights.masked_fill(flat, 0).contiguous()
    residual = linear - weights @ gram
    sweeps = torch.zeros(len(weights), dtype=torch.int64, device=weights.device)
    running = torch.full_like(sweeps, len(weights) > 0 and max_sweeps > 0, dtype=torch.bool)
    over_all = running.clone()  # the rows whose sweep is over all coordinates, not over the active ones
    active = torch.zeros_like(weights, dtype=torch.bool)
    while running.any():
        moved = torch.zeros_like(running)
        chosen = (active | over_all[:, None]) & running[:, None] & ~flat
        for j in range(weights.shape[1]):
            aim = residual[:, j] + diagonal[j] * weights[:, j]
            new = torch.copysign((aim.abs() - l1).clamp_min(0), aim) / curvature[j]
            change = torch.where(chosen[:, j], new - weights[:, j], 0)
            weights[:, j] += change
            residual -= change[:, None] * gram[j]
            moved |= ~(change.abs() * curvature[j] <= tolerance)
        sweeps += running
        running &= (moved | ~over_all) & (sweeps < max_sweeps)
        active = torch.where(over_all[:, None], weights != 0, active)
        over_all = ~over_all & ~moved
    return weights, sweeps


def _fake(
    linear: Tensor,
    gram: Tensor,
    weights: Tensor,
    l1: float,
    l2: float,
    tolerance: float,
    max_sweeps: int,
) -> tuple[Tensor, Tensor]:
    like = torch.empty_like(weights, memory_format=torch.contiguous_format)
    return like, weights.new_empty(weights.shape[:1], dtype=torch.int64)


_gram_descent = register(
    "gram_descent",
    "(Tensor linear, Tensor gram, Tensor weights, float l1, float l2, float tolerance, int max_sweeps)"
    " -> (Tensor, Tensor)",
    _reference,
    _fake,
    kernels=("cpu",),
)


def gram_descent(
    linear: Tensor,
    gram: Tensor,
    weights: Tensor,
    l1: float,
    l2: float,
    tolerance: float,
    max_sweeps: int,
) -> tuple[Tensor, Tensor]:
    """Solve K elastic nets that share a Gram matrix G: one for every row c of `linear`, over w,

        minimise  w G w / 2 - c w + l1 * sum |w_j| + l2 / 2 * sum w_j^2.

    Args:
        linear: (K, d) float32 or float64.
        gram: (d, d) like `linear`: symmetric, positive semidefinite, which is not checked.
        weights: (K, d) like `linear`: where the descent starts.
        l1: Weight of the absolute values, at least 0.
        l2: Weight of half the squares, at least 0.
        tolerance: A sweep has converged if no change of a w_j times (G_jj + l2) is larger: the gradient along j that
            the change took away.
        max_sweeps: How many sweeps one row may take, of both kinds together, at least 1.

    Returns:
        Weights (K, d) and, int64, the sweeps (K,) that each row took; a row that took `max_sweeps` has not converged.

    A sweep goes over the coordinates in order and sets each to its optimum given the others. The first sweep is over
    all coordinates; if it moved any by more than the tolerance, there follow sweeps over those that are then not zero,
    until one converges, then again a sweep over all. A row is done when a sweep over all converges, so a start at the
    optimum takes one sweep. Coordinates with G_jj + l2 = 0 are 0. In float32, a tolerance below the rounding of
    the rows of `linear`, about 1e-7 of their largest number, may never be met.

    Every row is solved by itself: its result has the same bits for any number of threads. There is a kernel for CPU
    alone; on CUDA the reference in plain torch runs, which is slow. Not differentiable.

    Raises:
        ValueError: Shapes or devices do not fit, or a number is out of its range.
        TypeError: The tensors are not all float32 or all float64.
        RuntimeError: The diagonal of `gram` holds a negative number (on CUDA an assertion on the device).

    Source: Friedman, Hastie and Tibshirani, "Regularization Paths for Generalized Linear Models via Coordinate
    Descent", 2010: covariance updates and active sets.
    """
    _check(linear, gram, weights, l1, l2, tolerance, max_sweeps)
    found: tuple[Tensor, Tensor] = _gram_descent(
        linear.detach(), gram.detach(), weights.detach(), l1, l2, tolerance, max_sweeps
    )
    return found


def _check(
    linear: Tensor, gram: Tensor, weights: Tensor, l1: float, l2: float, tolerance: float, max_sweeps: int
) -> None:
    where = "gram_descent"
    tensors = (linear, gram, weights)
    if linear.dtype not in (torch.float32, torch.float64) or any(t.dtype != linear.dtype for t in tensors):
        got = ", ".join(str(t.dtype) for t in tensors)
        fix = "Convert linear, gram and weights to one dtype, for example with .double()."
        raise TypeError(explain(where, "three float32 or three float64 tensors", got, fix))
    if linear.dim() != 2:
        fix = "Give one row per problem and one column per coordinate."
        raise ValueError(explain(where, "linear of shape (K, d)", tuple(linear.shape), fix))
    d = linear.shape[1]
    if tuple(gram.shape) != (d, d):
        fix = "The Gram matrix has a row and a column for every column of linear."
        raise ValueError(explain(where, f"gram of shape ({d}, {d})", tuple(gram.shape), fix))
    if weights.shape != linear.shape:
        fix = "Start at zeros with torch.zeros_like(linear)."
        wanted = f"weights of shape {tuple(linear.shape)}"
        raise ValueError(explain(where, wanted, tuple(weights.shape), fix))
    if any(t.device != linear.device for t in tensors):
        got = ", ".join(str(t.device) for t in tensors)
        fix = "Move gram and weights to the device of linear."
        raise ValueError(explain(where, "all tensors on one device", got, fix))
    if not (0 <= l1 < math.inf and 0 <= l2 < math.inf and 0 <= tolerance < math.inf and max_sweeps >= 1):
        got = f"l1={l1}, l2={l2}, tolerance={tolerance}, max_sweeps={max_sweeps}"
        fix = "Penalties and tolerance are finite and not negative."
        raise ValueError(explain(where, "l1 >= 0, l2 >= 0, tolerance >= 0 and max_sweeps >= 1", got, fix))
