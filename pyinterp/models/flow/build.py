"""Write the planned graph: aligned blocks, sliced weights, constants where an operation needs them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from pyinterp.models.flow.masks import Masks, count, everything, filled, indices, is_empty, position
from pyinterp.models.flow.plan import Flow, rule_of

aten = torch.ops.aten


def affine(x: Tensor, axis: int) -> Tensor:
    """Marks scale * x + shift along an axis until `simplify` folds it or writes it out."""
    raise NotImplementedError("a marker: lowered before the graph runs")


@dataclass
class Affine:
    """Scale and shift (float64) along one axis of a marked node; None for no shift."""

    axis: int
    rank: int
    scale: Tensor
    shift: Tensor | None
    dtype: torch.dtype


@dataclass
class Weighted:
    """Weights of a conv or linear node, written into the graph last, after folding."""

    name: str
    weight: Tensor
    bias: Tensor | None
    trained: bool
    output_axis: int
    input_axis: int
    groups: int


class Builder:
    """The graph under construction; ``graph`` maps blocks of the old values to nodes of the new graph."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.graph = Graph()
        self.root = nn.Module()
        self.affine: dict[Node, Affine] = {}
        self.weighted: dict[Node, Weighted] = {}
        self.scores: list[Node] = []
        self.group: Node | None = None
        self._values: dict[Node, Node] = {}
        self._aligned: dict[tuple[Any, ...], Node] = {}
        self._names: dict[int, str] = {}
        self._registered: list[Tensor] = []
        self._batch: dict[int, Node] = {}

    def run(self, with_scores: bool) -> None:
        """Write every stored value."""
        flow = self.flow
        self._values[flow.input] = self.graph.placeholder(str(flow.input.target))
        if with_scores:
            self.group = self.graph.placeholder(str(flow.group.target))
            self.scores = [self.graph.placeholder(str(n.target)) for n in flow.scores]
        for node in flow.nodes:
            if node in flow.stored:
                inputs = [None if is_empty(m) else self.align(n, m) for n, m in flow.demands[node]]
                self._values[node] = rule_of(node).emit(self, node, inputs)
        answer = flow.nodes[-1].args[0]
        self.graph.output(self.align(answer, everything(flow.dims(answer))))  # type: ignore[arg-type]

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        return self.graph.call_function(target, args, kwargs)

    def copy(self, node: Node, inputs: list[Node | None]) -> Node:
        """The same call on the blocks of its inputs."""
        new = dict(zip((n for n, _ in self.flow.demands[node]), inputs, strict=True))
        args, kwargs = torch.fx.map_arg(  # type: ignore[no-untyped-call]
            (node.args, node.kwargs), lambda n: new[n] if n in new else self.scalar(n)
        )
        return self.graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]

    def scale_and_shift(
        self, node: Node, x: Node | None, axis: int, scale: Tensor, shift: Tensor | None
    ) -> Node:
        """scale * x + shift (float64 vectors) along an axis; `simplify` folds it into its neighbours."""
        new = self.call(affine, x, axis)
        rank = len(self.flow.dims(node))
        self.affine[new] = Affine(axis, rank, scale, shift, self.flow.dtype(node.meta["val"].dtype))
        return new

    def scalar(self, node: Node) -> Node:
        """A size: the batch, or a number of times the batch, or what the old graph computed it from."""
        value = node.meta["val"]
        if isinstance(value, torch.SymInt):
            factor, rest = value.node.expr.as_coeff_Mul()
            if rest.is_Symbol:
                return self.batch(int(factor))
        if node not in self._values:
            if any(n in self.flow.stored or n is self.flow.input for n in node.all_input_nodes):
                inputs = {n: self.align(n, everything(self.flow.dims(n))) for n in self.flow.inputs(node)}
            else:
                inputs = {}
            self._values[node] = self.graph.node_copy(
                node, lambda n: inputs[n] if n in inputs else self.scalar(n)
            )
        return self._values[node]

    def batch(self, times: int) -> Node:
        """The node of ``times`` * N."""
        if 1 not in self._batch:
            self._batch[1] = self.call(aten.sym_size.int, self._values[self.flow.input], 0)
        if times not in self._batch:
            self._batch[times] = self.call(operator.mul, self._batch[1], times)
        return self._batch[times]

    def register(self, name: str, value: Tensor, trained: bool = False) -> Node:
        """A get_attr node of a tensor; the same tensor is registered once."""
        if id(value) not in self._names:
            free, number = name, 0
            while hasattr(self.root, free):
                number += 1
                free = f"{name}_{number}"
            if trained and value.is_floating_point():
                setattr(self.root, free, nn.Parameter(value.detach(), requires_grad=False))
            else:
                self.root.register_buffer(free, value.detach())
            self._names[id(value)] = free
            self._registered.append(value)  # keeps the id taken
        return self.graph.get_attr(self._names[id(value)])

    def vector(self, name: str, value: Tensor, axis: int, rank: int, dtype: torch.dtype) -> Node:
        """A (C,) vector that broadcasts along ``axis`` of a value of the given rank."""
        shape = [1] * rank
        shape[axis] = -1
        return self.register(name, value.reshape(shape).to(self.flow.device, dtype), trained=True)

    def index(self, positions: Tensor) -> Node:
        return self.register("index", positions.to(self.flow.device))

    def sliced(self, node: Node, masks: Masks) -> Tensor:
        """Block of a constant value, contiguous; the tensor itself where nothing is left out."""
        value = self.flow.tensor(node)
        for axis, mask in enumerate(masks):
            if mask is not None:
                value = value.index_select(axis, indices(mask).to(value.device))
        return value

    def trained(self, node: Node) -> bool:
        """Whether a constant comes from the model's parameters."""
        if node.op == "get_attr":
            return bool(node.meta.get("parameter", False))
        return any(self.trained(n) for n in node.all_input_nodes if n.op in ("get_attr", "call_function"))

    def align(self, node: Node, masks: Masks) -> Node:
        """The block ``masks`` of a value, from what is stored of it and what is known of it."""
        key = (node, *(None if m is None else m.numpy().tobytes() for m in masks))
        if key not in self._aligned:
            self._aligned[key] = self._align(node, masks)
        return self._aligned[key]

    def _align(self, node: Node, masks: Masks) -> Node:
        if self.flow.is_constant(node):
            name = str(node.target) if node.op == "get_attr" else node.name
            return self.register(name, self.sliced(node, masks), self.trained(node))
        stored = self.flow.stored.get(node)
        if node is self.flow.input:
            stored = everything(self.flow.dims(node))
        fact = self.flow.known.get(node)
        if stored is None:
            return self._constants(node, masks, fact.axis, masks[fact.axis])  # type: ignore[union-attr]
        value = self._values[node]
        if fact is None or stored[fact.axis] is None:
            return self._select(node, value, stored, masks)
        axis = fact.axis
        size = self.flow.dims(node)[axis].size
        have, want = filled(stored[axis], size), filled(masks[axis], size)
        missing = want & ~have
        if not missing.any():
            return self._select(node, value, stored, masks)
        found = want & have
        constants = self._constants(node, masks, axis, missing)
        if not found.any():
            return constants
        part = (*masks[:axis], found, *masks[axis + 1 :])
        joined = self.call(aten.cat.default, [self._select(node, value, stored, part), constants], axis)
        order = torch.cat([indices(found), indices(missing)]).argsort()
        return self._take(joined, axis, order, len(order))

    def _select(self, node: Node, value: Node, stored: Masks, masks: Masks) -> Node:
        for axis, (have, want) in enumerate(zip(stored, masks, strict=True)):
            dim = self.flow.dims(node)[axis]
            size = count(have, dim.size)
            want = filled(want, dim.size)
            if int(want.sum()) == size:
                continue
            positions = position(have, want)
            if not dim.batch:
                value = self._take(value, axis, positions, size)
                continue
            dims = self.flow.dims(node)
            before = [count(m, d.size) for m, d in zip(masks[:axis], dims[:axis], strict=True)]
            after = [count(m, d.size) for m, d in zip(stored[axis + 1 :], dims[axis + 1 :], strict=True)]
            value = self.call(aten.reshape.default, value, [*before, -1, size, *after])
            value = self._take(value, axis + 1, positions, size)
            value = self.call(aten.reshape.default, value, [*before, -1, *after])
        return value

    def _take(self, value: Node, axis: int, positions: Tensor, size: int) -> Node:
        """``value`` at positions along an axis of length ``size``: a view where they are evenly spaced."""
        number = len(positions)
        if number == size and bool((positions == torch.arange(size)).all()):
            return value
        first, last = int(positions[0]), int(positions[-1])
        if number == 1:
            return self.call(aten.slice.Tensor, value, axis, first, first + 1)
        steps = positions.diff()
        step = int(steps[0])
        if step > 0 and bool((steps == step).all()):
            return self.call(aten.slice.Tensor, value, axis, first, last + 1, step)
        return self.call(aten.index_select.default, value, axis, self.index(positions))

    def _constants(self, node: Node, masks: Masks, axis: int, entries: Tensor | None) -> Node:
        """A block of known constants, without storage of its own."""
        dims = self.flow.dims(node)
        fact = self.flow.known[node]
        values = fact.value[filled(entries, dims[axis].size)]
        dtype = self.flow.dtype(node.meta["val"].dtype)
        vector = self.vector(f"{node.name}_constant", values, axis, len(dims), dtype)
        sizes: list[Any] = []
        for other, (mask, dim) in enumerate(zip(masks, dims, strict=True)):
            size = len(values) if other == axis else count(mask, dim.size)
            sizes.append(self.batch(size) if dim.batch else size)
        return self.call(aten.expand.default, vector, sizes)

    def finish(self, name: str) -> GraphModule:
        """The module of the graph; weights of conv and linear nodes are written in now."""
        for node, weights in self.weighted.items():
            with self.graph.inserting_before(node):
                weight = self.register(weights.name, weights.weight, weights.trained)
                bias = None
                if weights.bias is not None:
                    bias_name = weights.name.removesuffix("weight") + "bias"
                    bias = self.register(bias_name, weights.bias, weights.trained)
            node.args = (node.args[0], weight, bias, *node.args[3:])
        self.graph.eliminate_dead_code()
        return GraphModule(self.root, self.graph, class_name=name).eval()
