"""Forward: what is constant for a set of kept units. Backward: what is needed. Together: what has to be computed.

A value is stored as a block (one index set per axis). Whatever is needed and not in the block is a known constant.
One `Rule` per operation says what its result knows, what it needs of its inputs, and how it is written down; an
operation without a rule gets its inputs whole, so it may be slower but never wrong.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyinterp.models.flow.masks import Dim, Known, Masks, dims_of, everything, is_empty, replaced, union
from pyinterp.models.graph import is_tensor, op_of

if TYPE_CHECKING:
    from pyinterp.models.flow.build import Builder

aten = torch.ops.aten

Demand = tuple[Node, Masks]
_FACTORIES = (aten.new_zeros, aten.new_ones, aten.new_full)


class Rule:
    """What an operation does with blocks; this one takes every input whole and knows nothing of its result."""

    def known(self, flow: Flow, node: Node) -> Known | None:
        """What is constant in the node's value."""
        return None

    def plan(self, flow: Flow, node: Node, wanted: Masks) -> tuple[Masks, list[Demand]]:
        """The block that is stored, at least ``wanted``, and what it takes of each input."""
        return everything(flow.dims(node)), [(n, everything(flow.dims(n))) for n in flow.inputs(node)]

    def emit(self, build: Builder, node: Node, inputs: list[Node | None]) -> Node:
        """Write the operation for the stored block; ``inputs`` are the demanded blocks (None: an empty one)."""
        return build.copy(node, inputs)


RULES: dict[Any, Rule] = {}
_WHOLE = Rule()
_POINTWISE: list[Rule] = []


def rule(*operations: Any) -> Callable[[type[Rule]], type[Rule]]:
    """Class decorator: the rule of these operations."""

    def register(kind: type[Rule]) -> type[Rule]:
        RULES.update(dict.fromkeys(operations, kind()))
        return kind

    return register


def pointwise_rule(kind: type[Rule]) -> type[Rule]:
    """Class decorator: the rule of every operation that torch tags as pointwise and that has no rule of its own."""
    _POINTWISE.append(kind())
    return kind


def rule_of(node: Node) -> Rule:
    """The rule of a call node."""
    found = RULES.get(op_of(node))
    if found is not None:
        return found
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags:
        return _POINTWISE[0]
    return _WHOLE


def bound(node: Node) -> dict[str, Any]:
    """Arguments of a call by the names of its schema, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    given = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
    return {a.name: given.get(a.name, a.default_value) for a in schema.arguments}


@dataclass(frozen=True)
class GateCall:
    """A gate's place: which site scales it, along which axis, and whether by its score or by one minus it."""

    site: int
    dim: int
    complement: bool
    scores: Node
    unit: Tensor  # (axis length,) long: the unit of each entry


class Flow:
    """The plan of one gated graph for one set of kept units.

    Args:
        module: forward(x, group, *scores) with gate calls.
        kept: One bool tensor (units,) per score placeholder.
        scores: One float tensor (units,) per site to treat the scores as constants, None to leave them live.
    """

    def __init__(
        self, module: GraphModule, kept: Sequence[Tensor], scores: Sequence[Tensor] | None = None
    ) -> None:
        self.module = module
        self.nodes = list(module.graph.nodes)
        placeholders = [n for n in self.nodes if n.op == "placeholder"]
        self.input, self.group, *self.scores = placeholders
        self.kept = [k.detach().cpu().flatten() for k in kept]
        self.values = None if scores is None else [s.detach().cpu().double().flatten() for s in scores]
        self._dims: dict[Node, tuple[Dim, ...]] = {n: dims_of(n.meta.get("val")) for n in self.nodes}
        self._constant: dict[Node, bool] = {}
        self._tensors: dict[Node, Tensor] = {}
        self._units: list[Tensor] = [torch.zeros_like(k) for k in self.kept]
        self.gates = {n: self._gate(n) for n in self.nodes if _is_gate(n)}
        self._score_nodes = self._nodes_of_scores()
        self.known: dict[Node, Known] = {}
        self.stored: dict[Node, Masks] = {}
        self.demands: dict[Node, list[Demand]] = {}
        self._forward()
        self._backward()

    def dims(self, node: Node) -> tuple[Dim, ...]:
        return self._dims[node]

    def inputs(self, node: Node) -> list[Node]:
        """Tensor (or tuple) inputs of a call, in order of appearance, without sizes."""
        return [
            n for n in node.all_input_nodes if not isinstance(n.meta.get("val"), (int, torch.SymInt, float))
        ]

    def live_units(self) -> list[Tensor]:
        """Per site, the units that are kept and whose gates are computed."""
        return self._units

    def is_constant(self, node: Node | None) -> bool:
        """Whether the value depends on weights alone."""
        if node is None:
            return True
        if node not in self._constant:
            self._constant[node] = self._find_constant(node)
        return self._constant[node]

    def _find_constant(self, node: Node) -> bool:
        if node.op == "get_attr":
            return True
        if node.op != "call_function" or not is_tensor(node):
            return False
        if op_of(node) in _FACTORIES:
            return all(not dim.batch for dim in self.dims(node))
        return all(self.is_constant(n) for n in node.all_input_nodes)

    @torch.no_grad()
    def tensor(self, node: Node) -> Tensor:
        """Value of a constant node."""
        if node not in self._tensors:
            self._tensors[node] = self._evaluate(node)
        return self._tensors[node]

    def _evaluate(self, node: Node) -> Tensor:
        if node.op == "get_attr":
            return attribute(self.module, str(node.target))
        if op_of(node) in _FACTORIES:
            value = node.meta["val"]
            like = torch.empty(0, dtype=self.dtype(value.dtype), device=self.device)
            return node.target(like, *node.args[1:])  # type: ignore[operator,no-any-return]
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self.tensor)  # type: ignore[no-untyped-call]
        return node.target(*args, **kwargs)  # type: ignore[operator,no-any-return]

    @property
    def _reference(self) -> tuple[torch.dtype, torch.dtype, torch.device]:
        """Dtype of the first floating weight when traced and now, and where it lies now."""
        for node in self.nodes:
            if node.op == "get_attr" and is_tensor(node) and node.meta["val"].dtype.is_floating_point:
                now = attribute(self.module, str(node.target))
                return node.meta["val"].dtype, now.dtype, now.device
        return torch.float32, torch.float32, torch.device("cpu")

    @property
    def device(self) -> torch.device:
        return self._reference[2]

    def dtype(self, traced: torch.dtype) -> torch.dtype:
        """Dtype now of a value that had dtype ``traced`` when the graph was taken."""
        then, now, _ = self._reference
        return now if traced == then else traced

    def factor(self, node: Node) -> tuple[Tensor, Tensor]:
        """What is known of a gate's factor: mask and value (float64), one entry each along its axis."""
        gate = self.gates[node]
        kept = self.kept[gate.site]
        value = torch.zeros(len(kept), dtype=torch.float64)
        mask = ~kept
        if self.values is not None:
            value = torch.where(kept, self.values[gate.site], 0.0)
            mask = torch.ones_like(kept)
        if gate.complement:
            value = torch.where(mask, 1 - value, 0.0)
        return mask[gate.unit], value[gate.unit]

    def open_units(self, node: Node, entries: Tensor) -> None:
        """Record that a gate computes these entries of its axis."""
        gate = self.gates[node]
        self._units[gate.site][gate.unit[entries]] = True

    def _gate(self, node: Node) -> GateCall:
        call = bound(node)
        scores = call["scores"]
        dims = self.dims(call["input"] if "input" in call else call["x"])
        dim = int(call["dim"]) % len(dims)
        source, complement = _score_source(scores, self.scores)
        site = self.scores.index(source)
        size, units = dims[dim].size, len(self.kept[site])
        return GateCall(site, dim, complement, source, torch.arange(size) // (size // units))

    def _nodes_of_scores(self) -> set[Node]:
        """Nodes that only prepare scores for gates; the builder writes them anew."""
        found = set(self.scores) | {self.group}
        for node in self.nodes:
            if (
                node.op == "call_function"
                and node not in self.gates
                and any(n in found for n in node.all_input_nodes)
            ):
                found.add(node)
        return found

    def _computed(self, node: Node) -> bool:
        return node.op == "call_function" and node not in self._score_nodes and not self.is_constant(node)

    def _forward(self) -> None:
        for node in self.nodes:
            if self._computed(node) and node.meta.get("val") is not None:
                found = rule_of(node).known(self, node)
                if found is not None:
                    self.known[node] = found

    def _backward(self) -> None:
        wants: dict[Node, Masks] = {}
        answer = self.nodes[-1].args[0]
        wants[answer] = everything(self.dims(answer))  # type: ignore[index,arg-type]
        for node in reversed(self.nodes):
            if (
                node not in wants
                or not self._computed(node)
                or isinstance(node.meta.get("val"), (int, torch.SymInt))
            ):
                continue
            wanted = wants[node]
            fact = self.known.get(node)
            if fact is not None:
                mask = wanted[fact.axis]
                wanted = replaced(wanted, fact.axis, ~fact.mask if mask is None else mask & ~fact.mask)
            if is_empty(wanted):
                continue
            self.stored[node], self.demands[node] = rule_of(node).plan(self, node, wanted)
            for source, masks in self.demands[node]:
                if not is_empty(masks):
                    wants[source] = union(wants.get(source), masks)


def wide(value: Tensor) -> Tensor:
    """A weight as what constants are computed in: float64, on the CPU."""
    return value.detach().cpu().double()


def attribute(module: torch.nn.Module, path: str) -> Any:
    """The attribute at a dotted path."""
    return operator.attrgetter(path)(module)


def _is_gate(node: Node) -> bool:
    return op_of(node) in (torch.ops.pyinterp.gate, torch.ops.pyinterp.gated_affine)


def _score_source(node: Node, scores: list[Node]) -> tuple[Node, bool]:
    """The score placeholder that a gate's factor comes from, and whether the factor is one minus it."""
    complement = False
    while node not in scores:
        complement ^= op_of(node) in (aten.rsub, aten.sub, operator.sub)
        node = next(n for n in node.all_input_nodes if n.op != "get_attr")
    return node, complement
