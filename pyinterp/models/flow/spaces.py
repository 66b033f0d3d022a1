"""Rules of operations that work along some axes and leave the others alone: pools, means, padding, softmax."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.flow.masks import Known, Masks, known, replaced
from pyinterp.models.flow.plan import Demand, Flow, Rule, bound, rule

aten = torch.ops.aten


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
