"""gated_affine: eval-mode BatchNorm, gate and activation of one site in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyinterp.errors import explain
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


def _silu_slope(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 + z * (1 - s))


def _hardswish_slope(z: Tensor) -> Tensor:
    inner = z / 3 + 0.5
    return torch.where(z <= -3, torch.zeros_like(z), torch.where(z < 3, inner, torch.ones_like(z)))


def _gelu_slope(z: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-z * math.sqrt(0.5)) + z * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _gelu_tanh_slope(z: Tensor) -> Tensor:
    root = math.sqrt(2 / math.pi)
    t = torch.tanh(root * (z + 0.044715 * z**3))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * root * (1 + 3 * 0.044715 * z * z)


# name: (the activation, its derivative); C++ receives the position in this table as `act`.
_ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "none": (lambda z: z, torch.ones_like),
    "relu": (F.relu, lambda z: (z > 0).to(z.dtype)),
    "relu6": (F.relu6, lambda z: ((z > 0) & (z < 6)).to(z.dtype)),
    "silu": (F.silu, _silu_slope),
    "hardswish": (F.hardswish, _hardswish_slope),
    "gelu": (F.gelu, _gelu_slope),
    "gelu_tanh": (lambda z: F.gelu(z, approximate="tanh"), _gelu_tanh_slope),
}
ACTIVATIONS = tuple(_ACTIVATIONS)
_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


def _forward(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    scores: Tensor,
    group: Tensor | None,
    act: int,
    temperature: float | None,
    dim: int,
) -> Tensor:
    affine = spread(scale, x, dim) * x.to(scores.dtype) + spread(shift, x, dim)
    activation = _ACTIVATIONS[ACTIVATIONS[act]][0]
    return store(activation(spread(opening(scores, temperature), x, dim, group) * affine), x)


def _forward_fake(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    scores: Tensor,
    group: Tensor | None,
    act: int,
    temperature: float | None,
    dim: int,
) -> Tensor:
    return result_like(x)


def _slopes(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    scores: Tensor,
    group: Tensor | None,
    act: int,
    temperature: float | None,
    dim: int,
) -> tuple[Tensor, Tensor]:
    affine = spread(scale, x, dim) * x.to(scores.dtype) + spread(shift, x, dim)
    g = spread(opening(scores, temperature), x, dim, group)
    grad_z = grad.to(scores.dtype) * _ACTIVATIONS[ACTIVATIONS[act]][1](g * affine)
    grad_scores = collect(grad_z * affine, scores, dim, group) * opening_slope(scores, temperature)
    return grad_z * g * spread(scale, x, dim), grad_scores


def _backward_reference(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    scores: Tensor,
    group: Tensor | None,
    act: int,
    temperature: float | None,
    dim: int,
    need_x: bool,
) -> tuple[Tensor, Tensor]:
    grad_x, grad_scores = _slopes(grad, x, scale, shift, scores, group, act, temperature, dim)
    return store(grad_x, x) if need_x else x.new_empty(0), grad_scores


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    scores: Tensor,
    group: Tensor | None,
    act: int,
    temperature: float | None,
    dim: int,
    need_x: bool,
) -> tuple[Tensor, Tensor]:
    grad_scores = torch.empty_like(scores, memory_format=torch.contiguous_format)
    return result_like(x) if need_x else x.new_empty(0), grad_scores


_INPUTS = (
    "Tensor x, Tensor scale, Tensor shift, Tensor scores, Tensor? group, int act, float? temperature, int dim"
)
_gated_affine = register("gated_affine", f"({_INPUTS}) -> Tensor", _forward, _forward_fake)
_gated_affine_backward = register(
    "gated_affine_backward",
    f"(Tensor grad, {_INPUTS}, bool need_x) -> (Tensor, Tensor)",
    _backward_reference,
    _backward_fake,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, shift, scores, group, ctx.act, ctx.temperature, ctx.dim = inputs
    ctx.save_for_backward(x, scale, shift, scores, group)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, shift, scores, group = ctx.saved_tensors
    need_x, _, _, need_scores = ctx.needs_input_grad[:4]
    arguments = (grad, x, scale, shift, scores, group, ctx.act, ctx.temperature, ctx.dim)
    if torch.is_grad_enabled():
        # Only create_graph=True comes here: plain torch can be differentiated once more.
        grad_x, grad_scores = _slopes(*arguments)
        grad_x = grad_x.to(x.dtype)
    else:
        grad_x, grad_scores = _gated_affine_backward(*arguments, need_x)
    none = (None, None)
    return grad_x if need_x else None, *none, grad_scores if need_scores else None, *none, *none


_differentiable_gated_affine = differentiable("gated_affine", _gated_affine, _save, _backward)


def gated_affine(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    scores: Tensor,
    act: str = "none",
    temperature: float | None = None,
    dim: int = 1,
    group: Tensor | None = None,
) -> Tensor:
    """Normalise, gate and activate one site: y = act(g * (scale * x + shift)).

    Args:
        x: (N, ..., C, ...), C = ``x.shape[dim]``; float32, bfloat16, float16 (or float64).
        scale: (C,) in the dtype of `scores`, BatchNorm's weight / sqrt(running_var + eps).
            A constant: it gets no gradient.
        shift: (C,) in the dtype of `scores`, BatchNorm's bias - running_mean * scale.
            A constant: it gets no gradient.
        scores: (C,) float32 (float64 with float64 `x`), or (G, C) with `group`.
        act: One of "none", "relu", "relu6", "silu", "hardswish", "gelu", "gelu_tanh".
        temperature: None uses the scores as gates g; otherwise g = sigmoid(scores / temperature).
        dim: The axis of channels, heads or neurons.
        group: (N,) int64, the row of `scores` that each sample uses: many trials in one batch.

    Returns:
        Like `x`, in its memory format (contiguous or channels-last; other layouts become contiguous).

    Equivalent to ``act(batch_norm(x) * g)`` computed in float32. The backward keeps `x` alone, recomputes the
    rest, and gives the gradients of `x` and `scores` in one pass over the data.

    Raises:
        ValueError: Shapes, `act`, `dim` or `temperature` do not fit.
        TypeError: `scores`, `scale` or `shift` has another dtype.
    """
    dim = check_gate("gated_affine", x, scores, temperature, dim, group)
    code = _CODES.get(act)
    if code is None:
        raise ValueError(explain("gated_affine", f"act in {ACTIVATIONS}", repr(act), "Choose one of them."))
    if scale.shape != shift.shape or scale.dim() != 1 or scale.shape[0] != x.shape[dim]:
        got = f"{tuple(scale.shape)} and {tuple(shift.shape)}"
        fix = "Fold BatchNorm into one number each per channel."
        raise ValueError(explain("gated_affine", f"scale and shift of shape ({x.shape[dim]},)", got, fix))
    if scale.dtype != scores.dtype or shift.dtype != scores.dtype:
        fix = "Convert them to the dtype of scores."
        raise TypeError(
            explain(
                "gated_affine", f"{scores.dtype} scale and shift", f"{scale.dtype} and {shift.dtype}", fix
            )
        )
    return _differentiable_gated_affine(x, scale, shift, scores, group, code, temperature, dim)
