"""gate: multiply every channel, head or neuron by its score, or by sigmoid(score / temperature)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyinterp.ops._common import (
    check_gate,
    collect,
    differentiable,
    opening,
    opening_slope,
    register,
    result_like,
    spread,
    store,
)


def _forward(x: Tensor, scores: Tensor, group: Tensor | None, temperature: float | None, dim: int) -> Tensor:
    return store(x.to(scores.dtype) * spread(opening(scores, temperature), x, dim, group), x)


def _forward_fake(
    x: Tensor, scores: Tensor, group: Tensor | None, temperature: float | None, dim: int
) -> Tensor:
    return result_like(x)


def _slopes(
    grad: Tensor, x: Tensor, scores: Tensor, group: Tensor | None, temperature: float | None, dim: int
) -> tuple[Tensor, Tensor]:
    grad, x = grad.to(scores.dtype), x.to(scores.dtype)
    grad_x = grad * spread(opening(scores, temperature), x, dim, group)
    return grad_x, collect(grad * x, scores, dim, group) * opening_slope(scores, temperature)


def _backward_reference(
    grad: Tensor,
    x: Tensor,
    scores: Tensor,
    group: Tensor | None,
    temperature: float | None,
    dim: int,
    need_x: bool,
) -> tuple[Tensor, Tensor]:
    grad_x, grad_scores = _slopes(grad, x, scores, group, temperature, dim)
    return store(grad_x, x) if need_x else x.new_empty(0), grad_scores


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    scores: Tensor,
    group: Tensor | None,
    temperature: float | None,
    dim: int,
    need_x: bool,
) -> tuple[Tensor, Tensor]:
    grad_scores = torch.empty_like(scores, memory_format=torch.contiguous_format)
    return result_like(x) if need_x else x.new_empty(0), grad_scores


_gate = register(
    "gate",
    "(Tensor x, Tensor scores, Tensor? group, float? temperature, int dim) -> Tensor",
    _forward,
    _forward_fake,
)
_gate_backward = register(
    "gate_backward",
    "(Tensor grad, Tensor x, Tensor scores, Tensor? group, float? temperature, int dim, bool need_x)"
    " -> (Tensor, Tensor)",
    _backward_reference,
    _backward_fake,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scores, group, ctx.temperature, ctx.dim = inputs
    ctx.save_for_backward(x, scores, group)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    x, scores, group = ctx.saved_tensors
    need_x, need_scores = ctx.needs_input_grad[:2]
    if torch.is_grad_enabled():
        # Only create_graph=True comes here: plain torch can be differentiated once more.
        grad_x, grad_scores = _slopes(grad, x, scores, group, ctx.temperature, ctx.dim)
        grad_x = grad_x.to(x.dtype)
    else:
        grad_x, grad_scores = _gate_backward(grad, x, scores, group, ctx.temperature, ctx.dim, need_x)
    return grad_x if need_x else None, grad_scores if need_scores else None, None, None, None


_differentiable_gate = differentiable("gate", _gate, _save, _backward)


def gate(
    x: Tensor,
    scores: Tensor,
    temperature: float | None = None,
    dim: int = 1,
    group: Tensor | None = None,
) -> Tensor:
    """Scale `x` along one axis by gates: y = x * g, g = scores or sigmoid(scores / temperature).

    Args:
        x: (N, ..., C, ...), C = ``x.shape[dim]``; float32, bfloat16, float16 (or float64).
        scores: (C,) float32 (float64 with float64 `x`), or (G, C) with `group`.
        temperature: None uses the scores as they are.
        dim: The axis of channels, heads or neurons.
        group: (N,) int64, the row of `scores` that each sample uses: many trials in one batch.

    Returns:
        Like `x`, in its memory format (contiguous or channels-last; other layouts become contiguous).

    Equivalent to ``x * g.view(C, 1, ...)`` computed in float32. The backward is one pass over the data: it
    gives the gradients of `x` and `scores`, summed in float32 in an order that depends on the shape alone.

    Raises:
        ValueError: Shapes, `dim` or `temperature` do not fit.
        TypeError: `scores` has another dtype.

    Source: the sigmoid gate with temperature of NeuroChains (Zhao et al., TMLR 2022).
    """
    dim = check_gate("gate", x, scores, temperature, dim, group)
    return _differentiable_gate(x, scores, group, temperature, dim)
