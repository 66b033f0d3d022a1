"""Rules of the gates: closed units are zero, open ones take their scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.flow.build import Builder
from pyinterp.models.flow.masks import Known, Masks, filled, indices, known, position, replaced
from pyinterp.models.flow.plan import Demand, Flow, Rule, bound, rule, wide
from pyinterp.ops.gated_affine import ACTIVATIONS

aten = torch.ops.aten

_ACTIVATION_CALLS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "relu": (aten.relu.default, (), {}),
    "relu6": (aten.hardtanh.default, (0.0, 6.0), {}),
    "silu": (aten.silu.default, (), {}),
    "hardswish": (aten.hardswish.default, (), {}),
    "gelu": (aten.gelu.default, (), {}),
    "gelu_tanh": (aten.gelu.default, (), {"approximate": "tanh"}),
}


class _GateRule(Rule):
    """Shared by both gates: what is closed is zero, what is open takes its score."""

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        dim = flow.gates[node].dim
        if dim != 0:
            wanted = replaced(wanted, 0, None)  # rows of scores are found along it
        entries = indices(filled(wanted[dim], flow.dims(node)[dim].size))
        mask, _ = flow.factor(node)
        flow.open_units(node, entries[~mask[entries]] if flow.values is None else entries)
        return wanted, [(node.args[0], wanted)]  # type: ignore[list-item]

    def group(self, build: Builder, node: Node, x: Node | None) -> Any:
        """The row of scores of each index along axis 0, from the samples' rows."""
        rows = bound(node)["group"]
        if rows is None or rows is build.flow.group:
            return None if rows is None else build.group
        return build.call(rows.target, build.group, x, *rows.args[2:])

    def score(self, build: Builder, node: Node) -> Node:
        """The node of one score per stored entry, from the site's stored units."""
        gate = build.flow.gates[node]
        value = build.scores[gate.site]
        if gate.complement:
            value = build.call(aten.rsub.Scalar, value, 1)
        present = build.flow.live_units()[gate.site]
        units = gate.unit[filled(build.flow.stored[node][gate.dim], len(gate.unit))]
        place = position(present, torch.ones_like(present))[units]
        if torch.equal(place, torch.arange(int(present.sum()))):
            return value
        return build.call(aten.index_select.default, value, -1, build.index(place))


@rule(torch.ops.pyinterp.gate)
class Gate(_GateRule):
    """y[c] = g[c] * x[c]."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        mask, value = flow.factor(node)
        dim = flow.gates[node].dim
        fact = flow.known.get(node.args[0])  # type: ignore[arg-type]
        if fact is None or fact.axis != dim:
            return known(dim, mask & (value == 0), value)
        return known(dim, (mask & (value == 0)) | fact.zero | (mask & fact.mask), value * fact.value)

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        flow, dim = build.flow, build.flow.gates[node].dim
        mask, value = flow.factor(node)
        kept = filled(flow.stored[node][dim], len(mask))
        if bool((mask & (value == 1))[kept].all()):
            return inputs[0]  # type: ignore[return-value]
        if flow.values is not None:
            return build.scale_and_shift(node, inputs[0], dim, value[kept], None)
        call = bound(node)
        rows = self.group(build, node, inputs[0])
        return build.call(node.target, inputs[0], self.score(build, node), rows, call["temperature"], dim)


@rule(torch.ops.pyinterp.gated_affine)
class GatedAffine(_GateRule):
    """y[c] = act(g[c] * (scale[c] * x[c] + shift[c])); every activation keeps zero."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        mask, value = flow.factor(node)
        call, dim = bound(node), flow.gates[node].dim
        closed = mask & (value == 0)
        fact = flow.known.get(call["x"])
        if fact is None or fact.axis != dim:
            return known(dim, closed, torch.zeros_like(value))
        inside = wide(flow.tensor(call["scale"])) * fact.value + wide(flow.tensor(call["shift"]))
        found = closed | (fact.mask & (mask | (inside == 0)))
        return known(dim, found, _activate(call["act"], torch.where(found, value * inside, 0.0)))

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        flow, call, dim = build.flow, bound(node), build.flow.gates[node].dim
        kept = flow.stored[node][dim]
        if flow.values is None:
            scale = build.register(f"{node.name}_scale", build.sliced(call["scale"], (kept,)))
            shift = build.register(f"{node.name}_shift", build.sliced(call["shift"], (kept,)))
            rows = self.group(build, node, inputs[0])
            rest = (self.score(build, node), rows, call["act"], call["temperature"], dim)
            return build.call(node.target, inputs[0], scale, shift, *rest)
        factor = flow.factor(node)[1]
        factors, shifts = (factor * wide(flow.tensor(call[name])) for name in ("scale", "shift"))
        stored = filled(kept, len(factor))
        result = build.scale_and_shift(node, inputs[0], dim, factors[stored], shifts[stored])
        name = ACTIVATIONS[call["act"]]
        if name == "none":
            return result
        target, args, kwargs = _ACTIVATION_CALLS[name]
        return build.call(target, result, *args, **kwargs)


def _activate(code: int, value: Tensor) -> Tensor:
    name = ACTIVATIONS[code]
    if name == "none":
        return value
    target, args, kwargs = _ACTIVATION_CALLS[name]
    return target(value, *args, **kwargs)  # type: ignore[no-any-return]
