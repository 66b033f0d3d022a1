"""Rules of operations that move entries about: views, permutations, selections, joins, pools over space."""

from __future__ import annotations

import operator
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
    filled,
    known,
    outer,
    project,
    replaced,
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
        first, second = (0, -1) if op_of(node) is aten.t else (int(a) % rank for a in node.args[1:3])  # type: ignore
        if rank > 1:
            order[first], order[second] = order[second], order[first]
        return order


@rule(operator.getitem, aten.select, aten.slice, aten.narrow)
class Selection(Rule):
    """A part of an axis: nothing but a narrower block of its source."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        place = self._place(flow, node)
        if place is None:
            return None
        source, axis, entries, dropped = place
        fact = flow.known.get(source)
        if fact is None or (fact.axis == axis and dropped):
            return None
        if fact.axis == axis:
            return known(axis, fact.mask[entries], fact.value[entries])
        return Known(fact.axis - (dropped and fact.axis > axis), fact.mask, fact.value)

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        place = self._place(flow, node)
        if place is None:
            return super().plan(flow, node, wanted)
        source, axis, entries, dropped = place
        mask = torch.zeros(flow.dims(source)[axis].size, dtype=torch.bool)
        mask[entries if dropped else entries[filled(wanted[axis], len(entries))]] = True
        if dropped:
            return wanted, [(source, replaced((*wanted[:axis], None, *wanted[axis:]), axis, mask))]
        return wanted, [(source, replaced(wanted, axis, mask))]

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        place = self._place(build.flow, node)
        if place is None:
            return build.copy(node, inputs)
        _, axis, _, dropped = place
        return build.call(aten.squeeze.dim, inputs[0], axis) if dropped else inputs[0]  # type: ignore[return-value]

    def _place(self, flow: Flow, node: Node) -> tuple[Node, int, Tensor, bool] | None:
        """Source, axis, the entries taken (ascending) and whether the axis is dropped; None: not a plain part."""
        source: Node = node.args[0]  # type: ignore[assignment]
        if op_of(node) is operator.getitem:
            if op_of(source) not in _SPLITS:
                return None
            return self._part(flow, node, source)
        call = bound(node)
        axis = int(call["dim"]) % len(flow.dims(source))
        dim = flow.dims(source)[axis]
        if dim.batch:
            return None
        everywhere = torch.arange(dim.size)
        if op_of(node) is aten.select:
            return source, axis, everywhere[call["index"]].view(1), True
        if op_of(node) is aten.narrow:
            return source, axis, everywhere[call["start"] : call["start"] + call["length"]], False
        return source, axis, everywhere[call["start"] : call["end"] : call["step"]], False

    def _part(self, flow: Flow, node: Node, split: Node) -> tuple[Node, int, Tensor, bool] | None:
        call, number = bound(split), int(node.args[1])  # type: ignore[arg-type]
        source = call["self"]
        axis = int(call["dim"]) % len(flow.dims(source))
        dim = flow.dims(source)[axis]
        if dim.batch:
            return None
        if op_of(split) is aten.unbind:
            return source, axis, torch.arange(dim.size)[number].view(1), True
        lengths = [dims.shape[axis] for dims in split.meta["val"]]
        number %= len(lengths)
        start = sum(lengths[:number])
        return source, axis, torch.arange(start, start + lengths[number]), False


@rule(aten.cat)
class Join(Rule):
    """Values one after another along an axis: an empty part is left out."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        axis = self._axis(flow, node)
        masks, values = [], []
        for source in node.args[0]:  # type: ignore[union-attr]
            size = flow.dims(source)[axis].size  # type: ignore[index,arg-type]
            fact = flow.known.get(source)  # type: ignore[arg-type]
            found = fact is not None and fact.axis == axis
            masks.append(fact.mask if found else torch.zeros(size, dtype=torch.bool))  # type: ignore[union-attr]
            values.append(fact.value if found else torch.zeros(size, dtype=torch.float64))  # type: ignore[union-attr]
        if flow.dims(node)[axis].batch:
            return None
        return known(axis, torch.cat(masks), torch.cat(values))

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        axis = self._axis(flow, node)
        sources: list[Node] = list(node.args[0])  # type: ignore[arg-type]
        dim = flow.dims(node)[axis]
        if dim.batch or len(set(sources)) != len(sources):
            return super().plan(flow, node, wanted)
        parts = filled(wanted[axis], dim.size).split([flow.dims(n)[axis].size for n in sources])
        return wanted, [(n, replaced(wanted, axis, part)) for n, part in zip(sources, parts, strict=True)]

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        if len(inputs) != len(node.args[0]):  # type: ignore[arg-type]
            return build.copy(node, inputs)
        parts = [n for n in inputs if n is not None]
        return parts[0] if len(parts) == 1 else build.call(node.target, parts, self._axis(build.flow, node))

    def _axis(self, flow: Flow, node: Node) -> int:
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        return int(axis) % len(flow.dims(node))  # type: ignore[arg-type]


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


class _AxisBound(Rule):
    """Needs some axes whole and leaves blocks along the others alone."""

    def axes(self, flow: Flow, node: Node) -> list[int]:
        """Axes of the first input that are mixed."""
        raise NotImplementedError

    def keeps(self, flow: Flow, node: Node, fact: Known) -> Known | None:
        """What stays known of a fact along an axis that is not mixed."""
        return None

    def known(self, flow: Flow, node: Node) -> Known | None:
        fact = flow.known.get(node.args[0])  # type: ignore[arg-type]
        if fact is None or fact.axis in self.axes(flow, node):
            return None
        return self.keeps(flow, node, fact)

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        block = wanted
        for axis in self.axes(flow, node):
            block = replaced(block, axis, None)
        return block, [(node.args[0], block)]  # type: ignore[list-item]


@rule(aten.max_pool1d, aten.max_pool2d, aten.max_pool3d, aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d)
class Pool(_AxisBound):
    """Pools over space: a constant channel stays constant unless padding is averaged in."""

    def axes(self, flow: Flow, node: Node) -> list[int]:
        rank = len(flow.dims(node))
        return list(range(rank - self._spatial(node), rank))

    def keeps(self, flow: Flow, node: Node, fact: Known) -> Known | None:
        call = bound(node)
        padding = call["padding"]
        padded = any([padding] if isinstance(padding, int) else padding) and call.get(
            "count_include_pad", False
        )
        if padded or call.get("divisor_override") is not None:
            return known(fact.axis, fact.zero, fact.value)
        return fact

    def _spatial(self, node: Node) -> int:
        return int(node.target._schema.name.rpartition("pool")[2][0])  # type: ignore[union-attr]


@rule(
    aten.adaptive_avg_pool1d,
    aten.adaptive_avg_pool2d,
    aten.adaptive_avg_pool3d,
    aten.adaptive_max_pool2d,
    aten.upsample_nearest2d,
    aten.upsample_bilinear2d,
)
class Resample(Pool):
    """Means and interpolations over space: a constant channel stays constant."""

    def keeps(self, flow: Flow, node: Node, fact: Known) -> Known | None:
        return fact if isinstance(node.meta["val"], Tensor) else None

    def axes(self, flow: Flow, node: Node) -> list[int]:
        rank = len(flow.dims(node.args[0]))  # type: ignore[arg-type]
        return list(range(2, rank))


@rule(aten.pad, aten.constant_pad_nd)
class Pad(_AxisBound):
    """Adds entries around the last axes."""

    def axes(self, flow: Flow, node: Node) -> list[int]:
        pads, rank = list(bound(node)["pad"]), len(flow.dims(node))
        return [rank - 1 - i for i in range(len(pads) // 2) if pads[2 * i] or pads[2 * i + 1]]

    def keeps(self, flow: Flow, node: Node, fact: Known) -> Known | None:
        call = bound(node)
        if not self.axes(flow, node) or call.get("mode", "constant") != "constant":
            return fact
        return known(fact.axis, fact.mask & (fact.value == float(call["value"] or 0)), fact.value)


@rule(aten.roll)
class Roll(_AxisBound):
    """Turns entries round along some axes."""

    def axes(self, flow: Flow, node: Node) -> list[int]:
        rank = len(flow.dims(node))
        dims = bound(node)["dims"]
        return [int(axis) % rank for axis in dims] if dims else list(range(rank))

    def keeps(self, flow: Flow, node: Node, fact: Known) -> Known | None:
        return fact


@rule(aten.mean, aten.amax)
class Mean(Rule):
    """Mean or maximum over some axes, which it needs whole."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        fact = flow.known.get(node.args[0])  # type: ignore[arg-type]
        axes, keepdim = self._axes(flow, node)
        if fact is None or axes is None or fact.axis in axes:
            return None
        moved = 0 if keepdim else sum(axis < fact.axis for axis in axes)
        return Known(fact.axis - moved, fact.mask, fact.value)

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        axes, keepdim = self._axes(flow, node)
        if axes is None:
            return super().plan(flow, node, wanted)
        source: Node = node.args[0]  # type: ignore[assignment]
        left = iter(wanted)
        taken: list[Tensor | None] = []
        for axis in range(len(flow.dims(source))):
            mask = next(left) if keepdim or axis not in axes else None
            taken.append(None if axis in axes else mask)
        return wanted, [(source, tuple(taken))]

    def _axes(self, flow: Flow, node: Node) -> tuple[list[int] | None, bool]:
        call = bound(node)
        dims = call.get("dim")
        if not dims:
            return None, False
        rank = len(flow.dims(node.args[0]))  # type: ignore[arg-type]
        return [int(axis) % rank for axis in ([dims] if isinstance(dims, int) else dims)], bool(
            call["keepdim"]
        )
