"""Rules of pointwise operations: what is constant stays constant, what is narrow stays narrow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.flow.build import Builder
from pyinterp.models.flow.masks import Known, Masks, filled, is_empty, known, position, replaced, union
from pyinterp.models.flow.plan import Demand, Flow, Rule, bound, pointwise_rule, rule
from pyinterp.models.graph import op_of

aten = torch.ops.aten


def _masks_of_input(flow: Flow, node: Node, source: Node, masks: Masks) -> Masks:
    """A block of the result, seen from an input that broadcasts against it."""
    dims, own = flow.dims(node), flow.dims(source)
    offset = len(dims) - len(own)
    return tuple(
        None if dim.size == 1 and dims[axis + offset] != dim else masks[axis + offset]
        for axis, dim in enumerate(own)
    )


def _facts(flow: Flow, node: Node) -> list[tuple[Node, Known | None]]:
    """What is known of each computed input, its axis counted in the result."""
    found = []
    for source in flow.inputs(node):
        if flow.is_constant(source):
            continue
        fact = flow.known.get(source)
        offset = len(flow.dims(node)) - len(flow.dims(source))
        if fact is not None and flow.dims(source)[fact.axis] != flow.dims(node)[fact.axis + offset]:
            fact = None
        found.append((source, None if fact is None else Known(fact.axis + offset, fact.mask, fact.value)))
    return found


def _constant_vector(flow: Flow, node: Node, source: Node, axis: int) -> Tensor | None:
    """A constant input as a vector along one axis of the result; None where it varies along another."""
    value = flow.tensor(source)
    own = axis - (len(flow.dims(node)) - value.dim())
    if any(size != 1 for other, size in enumerate(value.shape) if other != own):
        return None
    flat = value.detach().cpu().reshape(-1)
    return flat.double() if flat.is_floating_point() else flat


@pointwise_rule
@rule(aten.contiguous, aten.hardswish, aten.prelu, aten.rsub)
class Pointwise(Rule):
    """y = f(x, ...) entry by entry, with broadcasting."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        facts = _facts(flow, node)
        if op_of(node) in (aten.contiguous, aten.clone):
            return facts[0][1] if facts else None
        if not facts or any(fact is None for _, fact in facts) or not node.meta["val"].is_floating_point():
            return None
        axis = facts[0][1].axis  # type: ignore[union-attr]
        mask = torch.ones(flow.dims(node)[axis].size, dtype=torch.bool)
        vectors: dict[Node, Tensor | None] = {}
        for source, fact in facts:
            if fact is None or fact.axis != axis:
                return None
            mask = mask & fact.mask
            vectors[source] = fact.value
        for source in flow.inputs(node):
            if flow.is_constant(source):
                vectors[source] = _constant_vector(flow, node, source, axis)
        sized = any(n not in vectors for n in node.all_input_nodes)
        if sized or any(v is None for v in vectors.values()) or op_of(node) is aten.prelu:
            return None
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: vectors[n])  # type: ignore[no-untyped-call]
        return known(axis, mask, node.target(*args, **kwargs).expand(len(mask)))  # type: ignore[operator]

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        return wanted, [(n, _masks_of_input(flow, node, n, wanted)) for n in flow.inputs(node)]


@rule(aten.mul)
class Multiply(Pointwise):
    """A factor that is zero makes the product zero, whatever the other one is."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        found = super().known(flow, node)
        if found is not None:
            return found
        facts = [fact for _, fact in _facts(flow, node) if fact is not None and fact.zero.any()]
        if not facts:
            return None
        mask = torch.zeros_like(facts[0].mask)
        for fact in facts:
            if fact.axis == facts[0].axis:
                mask = mask | fact.zero
        return known(facts[0].axis, mask, torch.zeros_like(facts[0].value))

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        flow, (first, second) = build.flow, (*node.args, None)[:2]
        for one, other in ((first, second), (second, first)):
            if not isinstance(one, Node) or flow.is_constant(one) or flow.dims(one) != flow.dims(node):
                continue
            if isinstance(other, Node) and flow.is_constant(other):
                axis = _single_axis(flow.tensor(other), len(flow.dims(node)))
                if axis is not None and not flow.dims(node)[axis].batch:
                    scale = _constant_vector(flow, node, other, axis)
                    kept = filled(flow.stored[node][axis], flow.dims(node)[axis].size)
                    full = scale.expand(len(kept)) if scale is not None else None
                    if full is not None and full.is_floating_point():
                        x = inputs[flow.inputs(node).index(one)]
                        return build.scale_and_shift(node, x, axis, full[kept].double(), None)
        return build.copy(node, inputs)


def _single_axis(value: Tensor, rank: int) -> int | None:
    """The only axis along which a broadcast constant varies."""
    axes = [axis + rank - value.dim() for axis, size in enumerate(value.shape) if size != 1]
    return axes[0] if len(axes) == 1 else None


@rule(aten.add)
class Add(Pointwise):
    """A residual sum: the wider term carries the block, a narrower one is added to its channels alone."""

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        if not self._residual(flow, node):
            return super().plan(flow, node, wanted)
        blocks = []
        for source in node.args[:2]:
            fact = flow.known.get(source)  # type: ignore[arg-type]
            mask = None if fact is None else wanted[fact.axis]
            block = wanted
            if fact is not None:
                block = replaced(wanted, fact.axis, ~fact.mask if mask is None else mask & ~fact.mask)
            blocks.append(block)
        wide = 0 if _size(blocks[0]) >= _size(blocks[1]) else 1
        if not _covers(blocks[wide], wanted):
            blocks[wide] = wanted
        return wanted, list(zip(node.args[:2], blocks, strict=True))  # type: ignore[arg-type]

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        flow = build.flow
        if not self._residual(flow, node):
            return build.copy(node, inputs)
        stored = flow.stored[node]
        blocks = [masks for _, masks in flow.demands[node]]
        wide = next(i for i in (0, 1) if _covers(blocks[i], stored))
        base, narrow = inputs[wide], inputs[1 - wide]
        source = node.args[1 - wide]
        if narrow is not None:
            if _covers(blocks[1 - wide], stored):
                return build.copy(node, inputs)
            axis = flow.known[source].axis  # type: ignore[index]
            size = flow.dims(node)[axis].size
            place = position(stored[axis], filled(blocks[1 - wide][axis], size))
            base = build.call(aten.index_add.default, base, axis, build.index(place), narrow)
        return self._with_constants(build, node, base, source, blocks[1 - wide])

    def _with_constants(
        self, build: Builder, node: Node, base: Node | None, source: Any, block: Masks
    ) -> Node:
        """Add what the narrow term is known to hold outside its block."""
        flow = build.flow
        fact = flow.known.get(source)
        if fact is None or not fact.value.any():
            return base  # type: ignore[return-value]
        kept = filled(flow.stored[node][fact.axis], len(fact.mask))
        outside = fact.mask & ~filled(block[fact.axis], len(fact.mask))
        shift = torch.where(outside, fact.value, 0.0)[kept]
        if not shift.any():
            return base  # type: ignore[return-value]
        return build.scale_and_shift(node, base, fact.axis, torch.ones_like(shift), shift)

    def _residual(self, flow: Flow, node: Node) -> bool:
        """Whether this adds two computed values of one shape, with facts along one axis at most."""
        terms = node.args[:2]
        if len(terms) != 2 or terms[0] is terms[1] or bound(node).get("alpha", 1) != 1:
            return False
        if not all(isinstance(n, Node) and not flow.is_constant(n) for n in terms):
            return False
        if any(flow.dims(n) != flow.dims(node) for n in terms):  # type: ignore[arg-type]
            return False
        facts = [flow.known[n] for n in terms if n in flow.known]  # type: ignore[index]
        return len({fact.axis for fact in facts}) == 1


def _size(masks: Masks) -> float:
    return min((float(mask.sum()) / len(mask) for mask in masks if mask is not None), default=1.0)


def _covers(block: Masks, wanted: Masks) -> bool:
    merged = union(block, wanted)
    return not is_empty(block) and all(_same(a, b) for a, b in zip(merged, block, strict=True))


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
