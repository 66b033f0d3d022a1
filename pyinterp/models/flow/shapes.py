"""Rules of operations that move entries about: views, permutations, selections, joins, pools over space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.flow.build import Builder
from pyinterp.models.flow.masks import (
    Dim,
    Known,
    Masks,
    count,
    everything,
    known,
    outer,
    project,
)
from pyinterp.models.flow.plan import Demand, Flow, Rule, bound, rule
from pyinterp.models.graph import op_of

aten = torch.ops.aten

_BATCH = 1_000_003  # a prime stands for the batch when axes are matched
_SPLITS = (aten.unbind, aten.chunk, aten.split, aten.split_with_sizes)
Block = tuple[range, range]


def match_axes(old: tuple[Dim, ...], new: tuple[Dim, ...]) -> list[Block] | None:
    """Axes of a value and of its reshaped form, in the smallest runs that hold the same entries."""
    if any(dim.size <= 0 for dim in (*old, *new)):
        return None
    sizes = [[dim.size * (_BATCH if dim.batch else 1) for dim in dims] for dims in (old, new)]
    blocks: list[Block] = []
    i = j = 0
    while i < len(old) or j < len(new):
        start_i, start_j = i, j
        left = right = 1
        while True:
            if left <= right and i < len(old) and (left < right or i == start_i):
                left *= sizes[0][i]
                i += 1
            elif j < len(new) and (right < left or j == start_j):
                right *= sizes[1][j]
                j += 1
            elif left == right:
                break
            else:
                return None
        blocks.append((range(start_i, i), range(start_j, j)))
    return blocks


@rule(aten.view, aten.reshape, aten._unsafe_view, aten.flatten, aten.unflatten, aten.squeeze, aten.unsqueeze)
class Reshape(Rule):
    """The same entries in the same order under other axes."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        source = node.args[0]
        fact = flow.known.get(source)  # type: ignore[arg-type]
        blocks = match_axes(flow.dims(source), flow.dims(node))  # type: ignore[arg-type]
        if fact is None or blocks is None:
            return None
        for old, new in blocks:
            if fact.axis in old and _movable(flow, source, node, old, new):  # type: ignore[arg-type]
                sizes = [flow.dims(source)[axis].size for axis in old]  # type: ignore[arg-type]
                shape = [1] * len(sizes)
                shape[fact.axis - old.start] = -1
                mask = fact.mask.view(shape).expand(sizes).flatten()
                value = fact.value.view(shape).expand(sizes).flatten()
                return _constant_axis(mask, value, [flow.dims(node)[axis].size for axis in new], new.start)
        return None

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        source: Node = node.args[0]  # type: ignore[assignment]
        old_dims, new_dims = flow.dims(source), flow.dims(node)
        blocks = match_axes(old_dims, new_dims)
        stored, taken = list(everything(new_dims)), list(everything(old_dims))
        for old, new in blocks or []:
            masks = tuple(wanted[axis] for axis in new)
            if all(mask is None for mask in masks) or not _movable(flow, source, node, old, new):
                continue
            old_sizes, new_sizes = (
                [old_dims[axis].size for axis in old],
                [new_dims[axis].size for axis in new],
            )
            before = project(outer(masks, new_sizes), old_sizes)
            flat = outer(before, old_sizes)
            after = project(flat, new_sizes)
            if torch.equal(outer(after, new_sizes), flat):
                stored[new.start : new.stop] = after
                taken[old.start : old.stop] = before
        return tuple(stored), [(source, tuple(taken))]

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        dims, stored = build.flow.dims(node), build.flow.stored[node]
        if any(dim.size < 0 for dim in dims):
            return build.copy(node, inputs)
        shape = [-1 if dim.batch else count(mask, dim.size) for mask, dim in zip(stored, dims, strict=True)]
        return build.call(aten.reshape.default, inputs[0], shape)


def _movable(flow: Flow, source: Node, node: Node, old: range, new: range) -> bool:
    """Whether index sets can be carried over: the batch, where it takes part, is the slowest on both sides."""
    batch = [[flow.dims(n)[axis].batch for axis in axes] for n, axes in ((source, old), (node, new))]
    if not any(batch[0]) and not any(batch[1]):
        return True
    return all(flags[:1] == [True] and not any(flags[1:]) for flags in batch)


def _constant_axis(mask: Tensor, value: Tensor, sizes: list[int], start: int) -> Known | None:
    """The axis along which a flat set of constants is still constant."""
    best: Known | None = None
    block, values = mask.reshape(sizes), value.reshape(sizes)
    for axis, size in enumerate(sizes):
        rows, row_values = block.movedim(axis, 0).reshape(size, -1), values.movedim(axis, 0).reshape(size, -1)
        same = rows.all(1) & (row_values == row_values[:, :1]).all(1)
        found = known(start + axis, same, row_values[:, 0])
        if found is not None and (best is None or found.mask.float().mean() > best.mask.float().mean()):
            best = found
    return best


@rule(aten.permute, aten.transpose, aten.t)
class Permute(Rule):
    """The same entries with axes in another order."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        fact = flow.known.get(node.args[0])  # type: ignore[arg-type]
        if fact is None:
            return None
        return Known(self._order(flow, node).index(fact.axis), fact.mask, fact.value)

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        taken = list(wanted)
        for new, old in enumerate(self._order(flow, node)):
            taken[old] = wanted[new]
        return wanted, [(node.args[0], tuple(taken))]  # type: ignore[list-item]

    def _order(self, flow: Flow, node: Node) -> list[int]:
        """Old axis of each new one."""
        rank = len(flow.dims(node))
        order = list(range(rank))
        if op_of(node) is aten.permute:
            return [int(axis) % rank for axis in node.args[1]]  # type: ignore[union-attr,arg-type]
        call = bound(node)
        first, second = (int(call.get(name, default)) % rank for name, default in (("dim0", 0), ("dim1", -1)))
        if rank > 1:
            order[first], order[second] = order[second], order[first]
        return order


@rule(aten.expand)
class Expand(Rule):
    """Repeats axes of length one: they are written out whole, the others keep their blocks."""

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        source: Node = node.args[0]  # type: ignore[assignment]
        own, dims = flow.dims(source), flow.dims(node)
        offset = len(dims) - len(own)
        kept = [a >= offset and own[a - offset] == dim for a, dim in enumerate(dims)]
        stored = tuple(mask if keep else None for mask, keep in zip(wanted, kept, strict=True))
        return stored, [(source, stored[offset:])]

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        dims, stored = build.flow.dims(node), build.flow.stored[node]
        if any(dim.size < 0 for dim in dims):
            return build.copy(node, inputs)
        sizes: list[Any] = [
            build.batch(dim.size) if dim.batch else count(mask, dim.size)
            for mask, dim in zip(stored, dims, strict=True)
        ]
        return build.call(aten.expand.default, inputs[0], sizes)
