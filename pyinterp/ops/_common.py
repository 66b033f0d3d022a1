"""What the ops share: registration; for the gating ops layouts, the broadcast of score rows and the checks of input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyinterp import _extension
from pyinterp.errors import explain

_WITH_FLOAT32 = frozenset((torch.float32, torch.bfloat16, torch.float16))

LIBRARY = torch.library.Library("pyinterp", "FRAGMENT")


def register(
    name: str,
    schema: str,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    kernels: tuple[str, ...] = ("cpu", "cuda"),
) -> Any:
    """Define ``pyinterp::name`` with its plain-torch reference for every device and its fake kernel.

    `kernels` are the devices for which the op has a compiled kernel, if there is a compiled library.
    """

    def run_reference(x: Tensor, *args: Any) -> Any:
        if x.device.type in kernels:
            _extension.warn_reference(x.device.type)
        return reference(x, *args)

    LIBRARY.define(name + schema)
    LIBRARY.impl(name, run_reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pyinterp::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.pyinterp, name).default


def differentiable(
    name: str, op: Any, save: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Tensor]:
    """Register the gradient of ``pyinterp::name`` and return its caller.

    In eager mode the caller skips the autograd code that torch generates for custom ops: with an
    ``autograd.Function`` of our own, a small site costs a third less. Both run the same two functions. Where nothing
    needs a gradient, it goes below autograd straight away, which halves the cost once more.
    """
    torch.library.register_autograd(f"pyinterp::{name}", backward, setup_context=save, lib=LIBRARY)

    def forward(ctx: Any, *args: Any) -> Tensor:
        output: Tensor = op(*args)
        save(ctx, args, output)
        return output

    body = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    eager: Any = type(name, (torch.autograd.Function,), body)

    def call(*args: Any) -> Tensor:
        if torch.compiler.is_compiling():
            return op(*args)
        if _needs_no_gradient(args):
            with torch._C._AutoDispatchBelowAutograd():
                return op(*args)
        return eager.apply(*args)

    return call


def _needs_no_gradient(args: tuple[Any, ...]) -> bool:
    if torch.autograd.forward_ad._current_level >= 0:  # Function refuses the tangents it can't carry on
        return False
    if torch.is_grad_enabled():
        for value in args:  # a generator would cost as much as the rest
            if isinstance(value, Tensor) and value.requires_grad:
                return False
    return True


def result_like(x: Tensor) -> Tensor:
    """Allocate a result: the strides of a contiguous or channels-last `x`, else contiguous."""
    if x.is_contiguous() or _is_channels_last(x):
        return torch.empty_like(x)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def store(value: Tensor, x: Tensor) -> Tensor:
    """Round `value` to the dtype of `x` in the layout of its result."""
    out = result_like(x)
    return out.copy_(value)


def spread(rows: Tensor, x: Tensor, dim: int, group: Tensor | None = None) -> Tensor:
    """View (C,) or, by `group`, (G, C) `rows` so that they broadcast against `x` along `dim`."""
    shape = [1] * x.dim()
    shape[dim] = x.shape[dim]
    if group is not None:
        rows = rows.index_select(0, group)  # unlike indexing, refuses negative rows
        shape[0] = x.shape[0]
    return rows.reshape(shape)


def collect(value: Tensor, scores: Tensor, dim: int, group: Tensor | None) -> Tensor:
    """Sum `value` over every axis that `spread` broadcasts: the transpose of `spread`."""
    if group is None:
        others = [axis for axis in range(value.dim()) if axis != dim]
        return value.sum(others) if others else value.clone()
    others = [axis for axis in range(1, value.dim()) if axis != dim]
    per_sample = value.sum(others) if others else value
    return torch.zeros_like(scores).index_add(0, group, per_sample)


def opening(scores: Tensor, temperature: float | None) -> Tensor:
    """Return how far each gate is open: the scores themselves, or sigmoid(scores / temperature)."""
    return scores if temperature is None else torch.sigmoid(scores / temperature)


def opening_slope(scores: Tensor, temperature: float | None) -> Tensor:
    """Return the derivative of `opening` by the scores."""
    if temperature is None:
        return torch.ones_like(scores)
    z = scores / temperature
    return torch.sigmoid(z) * torch.sigmoid(-z) / temperature  # 1 - g would lose the digits of an open gate


def check_gate(
    where: str, x: Tensor, scores: Tensor, temperature: float | None, dim: int, group: Tensor | None
) -> int:
    """Check the arguments of a gating op and return `dim` counted from the front."""
    ndim = x.dim()
    if not -ndim <= dim < ndim:
        fix = "Pass the axis of channels, heads or neurons."
        raise ValueError(explain(where, f"dim of a {ndim}-dimensional x", f"dim={dim}", fix))
    if dim < 0:
        dim += ndim
    channels = x.shape[dim]
    if scores.dtype != torch.float32 or x.dtype not in _WITH_FLOAT32:
        _check_dtypes(where, x, scores)
    if group is None:
        if scores.dim() != 1 or scores.shape[0] != channels:
            fix = "Give one score per index of dim, or pass group to use rows of scores."
            raise ValueError(explain(where, f"scores of shape ({channels},)", tuple(scores.shape), fix))
    else:
        _check_group(where, x, scores, dim, group)
    if temperature is not None and not 0 < temperature < math.inf:
        fix = "Use temperature=None for the scores themselves."
        raise ValueError(explain(where, "a finite temperature > 0", temperature, fix))
    return dim


def _check_dtypes(where: str, x: Tensor, scores: Tensor) -> None:
    if x.dtype != torch.float64 and x.dtype not in _WITH_FLOAT32:
        fix = "Convert it, for example with .float()."
        raise TypeError(explain(where, "float32, bfloat16, float16 or float64 x", x.dtype, fix))
    wanted = torch.float64 if x.dtype == torch.float64 else torch.float32
    if scores.dtype != wanted:
        fix = f"Convert them with .to({wanted})."
        raise TypeError(explain(where, f"{wanted} scores for {x.dtype} x", scores.dtype, fix))


def _check_group(where: str, x: Tensor, scores: Tensor, dim: int, group: Tensor) -> None:
    channels = x.shape[dim]
    if dim == 0:
        fix = "Samples lie along axis 0, so gate another axis or leave group out."
        raise ValueError(explain(where, "dim != 0 with group", "dim=0", fix))
    if group.dtype != torch.int64 or group.shape != x.shape[:1]:
        fix = "group maps each sample to its row of scores."
        raise ValueError(
            explain(
                where, f"int64 group of shape ({x.shape[0]},)", f"{group.dtype} {tuple(group.shape)}", fix
            )
        )
    if scores.dim() != 2 or scores.shape[1] != channels:
        fix = "With group, scores holds one row per group."
        raise ValueError(explain(where, f"scores of shape (G, {channels})", tuple(scores.shape), fix))
