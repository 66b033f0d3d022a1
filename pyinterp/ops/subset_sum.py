"""subset_sum: sums over all subsets or supersets of 2^n subsets, and their inverses, in n 2^n / 2 additions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.ops._common import differentiable, register

_WIDE = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}


def _forward(values: Tensor, inverse: bool, superset: bool) -> Tensor:
    sums = values.to(_WIDE[values.dtype], copy=True, memory_format=torch.contiguous_format)
    half = values.shape[-1] // 2
    while half > 0:  # the kernels go from the last player to the first too, so they round alike
        without, present = sums.view(sums.numel() // (2 * half), 2, half).unbind(1)
        target, source = (without, present) if superset else (present, without)
        target.sub_(source) if inverse else target.add_(source)
        half //= 2
    return sums.to(values.dtype)


def _forward_fake(values: Tensor, inverse: bool, superset: bool) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


_subset_sum = register(
    "subset_sum", "(Tensor values, bool inverse, bool superset) -> Tensor", _forward, _forward_fake
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.inverse, ctx.superset = inputs


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    # A sum over subsets is a triangular matrix; its transpose sums over supersets.
    return _differentiable_subset_sum(grad, ctx.inverse, not ctx.superset), None, None


_differentiable_subset_sum = differentiable("subset_sum", _subset_sum, _save, _backward)


def subset_sum(values: Tensor, inverse: bool = False, superset: bool = False) -> Tensor:
    """Sum a function of subsets over all subsets (zeta transform), or undo that (Möbius transform).

    Args:
        values: (..., 2^n), n = 0 ... 28, one number for each subset of n players: bit i of an index says that
            player i is in the subset. float32, float64, float16 or bfloat16.
        inverse: Undo the sum: ``subset_sum(subset_sum(values), inverse=True)`` is `values` up to rounding.
        superset: Sum over the supersets of each subset in place of its subsets.

    Returns:
        (..., 2^n), contiguous, in the dtype of `values`; 16-bit numbers are summed in float32.

    ====================  ==================================================
    forward               y(S) = sum over T ⊆ S of x(T)
    inverse               y(S) = sum over T ⊆ S of (-1)^(|S|-|T|) x(T)
    superset              y(S) = sum over T ⊇ S of x(T)
    superset and inverse  y(S) = sum over T ⊇ S of (-1)^(|T|-|S|) x(T)
    ====================  ==================================================

    The gradient is the same op with the other `superset`. The result has the same bits for any number of threads.

    Raises:
        ValueError: The last dimension is no power of two up to 2^28.
        TypeError: `values` has another dtype.

    Source: the fast zeta and Möbius transforms (Yates, "The Design and Analysis of Factorial Experiments", 1937).
    """
    if values.dtype not in _WIDE:
        fix = "Convert the values, for example with .double()."
        expected = "float32, float64, float16 or bfloat16 values"
        raise TypeError(explain("subset_sum", expected, values.dtype, fix))
    if values.dim() == 0 or not _is_power_of_two(values.shape[-1]):
        fix = "Give one value for each of the 2^n subsets of n players."
        raise ValueError(
            explain("subset_sum", "values of shape (..., 2^n), n <= 28", tuple(values.shape), fix)
        )
    return _differentiable_subset_sum(values, inverse, superset)


def _is_power_of_two(size: int) -> bool:
    return 1 <= size <= 2**28 and size & (size - 1) == 0
