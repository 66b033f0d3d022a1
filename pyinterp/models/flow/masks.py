"""Index sets along the axes of a value, and what is known to be constant along one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# One entry per axis: a bool tensor (axis length,) of the entries that count, or None for all of them.
Masks = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Dim:
    """Length of one axis: ``size``, or ``size`` times the batch. An axis with no such form has size -1."""

    size: int
    batch: bool = False


@dataclass(frozen=True)
class Known:
    """Along ``axis``, the entries in ``mask`` hold ``value``, whatever the input and the other axes.

    ``mask`` and ``value`` have the axis' length; ``value`` is float64 and zero outside ``mask``.
    """

    axis: int
    mask: Tensor
    value: Tensor

    @property
    def zero(self) -> Tensor:
        return self.mask & (self.value == 0)


def known(axis: int, mask: Tensor, value: Tensor) -> Known | None:
    """A `Known`, or None where nothing is known."""
    if not mask.any():
        return None
    return Known(axis, mask, torch.where(mask, value.to(torch.float64), 0.0))


def dims_of(value: object) -> tuple[Dim, ...]:
    """Axes of a fake tensor; no axes for anything else."""
    if not isinstance(value, Tensor):
        return ()
    return tuple(_dim(size) for size in value.shape)


def _dim(size: int | torch.SymInt) -> Dim:
    if isinstance(size, int):
        return Dim(size)
    factor, rest = size.node.expr.as_coeff_Mul()
    return Dim(int(factor), True) if rest.is_Symbol else Dim(-1, True)


def tidy(mask: Tensor | None) -> Tensor | None:
    """None for a mask that leaves nothing out."""
    return None if mask is None or bool(mask.all()) else mask


def filled(mask: Tensor | None, size: int) -> Tensor:
    """The mask with None written out."""
    return torch.ones(size, dtype=torch.bool) if mask is None else mask


def count(mask: Tensor | None, size: int) -> int:
    """How many entries of an axis of length ``size`` a mask holds."""
    return size if mask is None else int(mask.sum())


def indices(mask: Tensor) -> Tensor:
    return mask.nonzero().flatten()


def is_empty(masks: Masks) -> bool:
    return any(mask is not None and not mask.any() for mask in masks)


def union(first: Masks | None, second: Masks) -> Masks:
    """The smallest block that holds both."""
    if first is None or is_empty(first):
        return second
    if is_empty(second):
        return first
    return tuple(
        tidy(a | b) if a is not None and b is not None else None for a, b in zip(first, second, strict=True)
    )


def replaced(masks: Masks, axis: int, mask: Tensor | None) -> Masks:
    return (*masks[:axis], tidy(mask), *masks[axis + 1 :])


def everything(dims: Sequence[Dim]) -> Masks:
    return (None,) * len(dims)


def outer(masks: Masks, sizes: Sequence[int]) -> Tensor:
    """(prod sizes,) bool: the block as a set of flat indices."""
    block = torch.ones((), dtype=torch.bool)
    for mask, size in zip(masks, sizes, strict=True):
        block = (block.unsqueeze(-1) & filled(mask, size)).flatten()
    return block.flatten()


def project(flat: Tensor, sizes: Sequence[int]) -> Masks:
    """The smallest block over axes of the given sizes that holds a set of flat indices."""
    if not sizes:
        return ()
    block = flat.reshape(tuple(sizes))
    return tuple(
        tidy(block.movedim(axis, 0).reshape(size, math.prod(sizes) // max(size, 1)).any(1))
        for axis, size in enumerate(sizes)
    )


def position(kept: Tensor | None, wanted: Tensor) -> Tensor:
    """Where the entries of ``wanted`` (a subset) stand among the entries of ``kept``."""
    if kept is None:
        return indices(wanted)
    return (torch.cumsum(kept, 0) - 1)[wanted]
