"""elastic_prox: the elementwise half of a proximal gradient step with an elastic-net penalty and momentum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.ops._common import register


def _reference(
    point: Tensor,
    gradient: Tensor,
    previous: Tensor,
    step: float,
    l1: float,
    l2: float,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    moved = point.contiguous() - step * gradient
    size = (moved.abs() - step * l1).clamp_min(0)
    weights = torch.copysign(size, moved) / (1 + step * l2)
    weights = weights.masked_fill(size == 0, 0)  # never -0
    return weights, weights + momentum * (weights - previous)


def _fake(
    point: Tensor,
    gradient: Tensor,
    previous: Tensor,
    step: float,
    l1: float,
    l2: float,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    like = torch.empty_like(point, memory_format=torch.contiguous_format)
    return like, torch.empty_like(like)


_elastic_prox = register(
    "elastic_prox",
    "(Tensor point, Tensor gradient, Tensor previous, float step, float l1, float l2, float momentum)"
    " -> (Tensor, Tensor)",
    _reference,
    _fake,
)


def elastic_prox(
    point: Tensor,
    gradient: Tensor,
    previous: Tensor,
    step: float,
    l1: float,
    l2: float,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    """Take one step of accelerated proximal gradient descent under ``l1 * |w| + l2 / 2 * w^2``.

    Args:
        point: Any shape, float32 or float64: where the gradient was taken.
        gradient: Like `point`: the gradient of the smooth part there.
        previous: Like `point`: the weights of the step before.
        step: Step size, more than 0.
        l1: Weight of the absolute values, at least 0.
        l2: Weight of half the squares, at least 0.
        momentum: How far to go on in the direction of the step; 0 is plain proximal gradient descent.

    Returns:
        The new weights and the next point, both like `point` and contiguous:

        - ``u = point - step * gradient``
        - ``weights = sign(u) * max(|u| - step * l1, 0) / (1 + step * l2)``, whose zeros are all +0
        - ``extrapolated = weights + momentum * (weights - previous)``

    One pass over memory. It is a solver's step and has no gradient itself.

    Raises:
        ValueError: Shapes or devices differ, or a number is out of its range.
        TypeError: The tensors are not all float32 or all float64.

    Source: Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems", 2009.
    """
    _check(point, gradient, previous, step, l1, l2, momentum)
    found: tuple[Tensor, Tensor] = _elastic_prox(
        point.detach(), gradient.detach(), previous.detach(), step, l1, l2, momentum
    )
    return found


def _check(
    point: Tensor,
    gradient: Tensor,
    previous: Tensor,
    step: float,
    l1: float,
    l2: float,
    momentum: float,
) -> None:
    where = "elastic_prox"
    tensors = (point, gradient, previous)
    if point.dtype not in (torch.float32, torch.float64) or any(t.dtype != point.dtype for t in tensors):
        got = ", ".join(str(t.dtype) for t in tensors)
        fix = "Convert them to one dtype, for example with .float()."
        raise TypeError(explain(where, "three float32 or three float64 tensors", got, fix))
    if any(t.shape != point.shape for t in tensors):
        got = ", ".join(str(tuple(t.shape)) for t in tensors)
        fix = "point, gradient and previous belong together element by element."
        raise ValueError(explain(where, "three tensors of one shape", got, fix))
    if any(t.device != point.device for t in tensors):
        got = ", ".join(str(t.device) for t in tensors)
        fix = "Move gradient and previous to the device of point."
        raise ValueError(explain(where, "all tensors on one device", got, fix))
    if not (
        0 < step < math.inf and 0 <= l1 < math.inf and 0 <= l2 < math.inf and -math.inf < momentum < math.inf
    ):
        got = f"step={step}, l1={l1}, l2={l2}, momentum={momentum}"
        fix = "A step is positive, a penalty is not negative, and all are finite."
        raise ValueError(explain(where, "step > 0, l1 >= 0, l2 >= 0 and a finite momentum", got, fix))
