"""Rules of operations that take parts of values and join them."""

from __future__ import annotations

import operator

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.flow.build import Builder
from pyinterp.models.flow.masks import Known, Masks, filled, known, replaced
from pyinterp.models.flow.plan import Demand, Flow, Rule, bound, rule
from pyinterp.models.graph import op_of

aten = torch.ops.aten

_SPLITS = (aten.unbind, aten.chunk, aten.split, aten.split_with_sizes)


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
