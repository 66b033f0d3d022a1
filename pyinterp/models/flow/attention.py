"""Rules of attention: removing heads narrows queries, keys, values and everything between them."""

from __future__ import annotations

import torch
from torch.fx import Node

from pyinterp.models.flow.masks import Masks, replaced
from pyinterp.models.flow.plan import Demand, Flow, Rule, bound, rule

aten = torch.ops.aten


def _batch_axes(flow: Flow, source: Node, wanted: Masks) -> Masks:
    """Blocks along the leading axes (all but two) of a factor, from those of the product."""
    own = flow.dims(source)[:-2]
    leading = wanted[:-2]
    taken = leading[len(leading) - len(own) :]
    return tuple(
        None if dim.size == 1 and not dim.batch else mask for mask, dim in zip(taken, own, strict=True)
    )


@rule(aten.scaled_dot_product_attention)
class Attention(Rule):
    """softmax(q k^T) v per head: (..., heads, tokens, width)."""

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        call = bound(node)
        if (
            call.get("enable_gqa")
            or len({len(flow.dims(call[name])) for name in ("query", "key", "value")}) != 1
        ):
            return super().plan(flow, node, wanted)
        stored = (*wanted[:-2], None, wanted[-1])
        demands = [
            (call[name], (*_batch_axes(flow, call[name], stored), None, None)) for name in ("query", "key")
        ]
        demands.append((call["value"], (*_batch_axes(flow, call["value"], stored), None, stored[-1])))
        if call["attn_mask"] is not None:
            mask = call["attn_mask"]
            demands.append((mask, (*_batch_axes(flow, mask, stored), None, None)))
        merged: dict[Node, Masks] = {}
        for source, masks in demands:
            if source in merged and any(a is not b for a, b in zip(masks, merged[source], strict=True)):
                return super().plan(flow, node, wanted)
            merged[source] = masks
        return stored, list(merged.items())


@rule(aten.matmul, aten.bmm)
class MatrixProduct(Rule):
    """(..., i, k) @ (..., k, j): rows follow the first factor, columns the second."""

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        first, second = node.args[:2]
        if first is second or any(len(flow.dims(n)) < 2 for n in (first, second)):  # type: ignore[arg-type]
            return super().plan(flow, node, wanted)
        rows = (*_batch_axes(flow, first, wanted), wanted[-2], None)  # type: ignore[arg-type]
        columns = (*_batch_axes(flow, second, wanted), None, wanted[-1])  # type: ignore[arg-type]
        return wanted, [(first, rows), (second, columns)]  # type: ignore[list-item]


@rule(aten.softmax, aten._softmax, aten.log_softmax)
class Softmax(Rule):
    """Normalises along one axis, which it needs whole."""

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        axis = int(bound(node)["dim"]) % len(wanted)
        block = replaced(wanted, axis, None)
        return block, [(node.args[0], block)]  # type: ignore[list-item]
