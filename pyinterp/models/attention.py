"""Attention heads and MLP neurons, found from the dataflow around products and activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from pyinterp.models.axes import Place, move
from pyinterp.models.dataflow import (
    ACTIVATIONS,
    CONVS,
    IDENTITY,
    MOVEMENT,
    POINTWISE,
    SUMS,
    Dataflow,
    argument,
    behind,
    input_of,
    only_user,
)
from pyinterp.models.graph import is_tensor, op_of, size_of

aten = torch.ops.aten

_PARTS = {aten.chunk, aten.split, aten.unbind} | IDENTITY


@dataclass(frozen=True)
class Heads:
    """One attention's heads, side by side along one axis.

    Attributes:
        attention: The product of attention weights and values.
        value: What leaves the attention, heads merged into one axis.
        dim: That axis, of size units * inner.
        units: Number of heads.
        inner: Entries of the axis per head.
        projection: The linear or conv that reads it; None where there is none.
    """

    attention: Node
    value: Node
    dim: int
    units: int
    inner: int
    projection: Node | None


def find_heads(flow: Dataflow) -> list[Heads]:
    """Every attention of the network, fused or written out as matmul, softmax, matmul."""
    found = [
        _heads(flow, node) for node in flow.nodes if flow.carries_data(node) and _is_attention(flow, node)
    ]
    return [heads for heads in found if heads is not None]


def _is_attention(flow: Dataflow, node: Node) -> bool:
    op = op_of(node)
    if op is aten.scaled_dot_product_attention:
        return True
    if op not in (aten.matmul, aten.bmm) or len(size_of(node)) < 3:
        return False
    return any(op_of(behind(n, MOVEMENT)) in (aten.softmax, aten._softmax) for n in flow.sources(node))


def _heads(flow: Dataflow, attention: Node) -> Heads | None:
    sizes = size_of(attention)
    # Without a head axis (N*H, T, D) the heads are the fastest part of the first one.
    place: Place | None = Place(len(sizes) - 3)
    value = attention
    while (user := only_user(value)) is not None and op_of(user) in MOVEMENT and place is not None:
        place, value = move(user, place), user
    if place is None:
        return None
    user = only_user(value)
    projection = user if user is not None and (op_of(user) in CONVS or op_of(user) is aten.linear) else None
    size = size_of(value)[place.axis]
    if sizes[-3] == 1 or not isinstance(size, int):
        # One head, as wide as the axis that the projection reads.
        last = len(size_of(value)) - 1
        return (
            Heads(attention, value, last, 1, size_of(value)[last], projection)
            if projection is not None
            else None
        )
    units = size // place.after
    if len(sizes) > 3 and sizes[-3] != units:
        return None
    return Heads(attention, value, place.axis, units, place.after, projection)


@dataclass(frozen=True)
class Neurons:
    """The hidden units between two linear maps (linears, or 1x1 convs without BatchNorm).

    Attributes:
        first: The map that produces them (the first of several for gated linear units).
        value: Their activation, read by ``second`` alone.
        second: The map that reads them.
        dim: Axis of ``value`` along which they lie.
    """

    first: list[Node]
    value: Node
    second: Node
    dim: int


def find_neurons(flow: Dataflow) -> list[Neurons]:
    """Every activation between two linear maps that the second map alone reads."""
    found = [_neurons(flow, node) for node in flow.nodes if flow.carries_data(node)]
    return [neurons for neurons in found if neurons is not None]


def _neurons(flow: Dataflow, second: Node) -> Neurons | None:
    if not _is_linear_map(second) or not flow.carries_data(input_of(second)):
        return None
    value = input_of(second)
    while op_of(value) in IDENTITY and only_user(value) is not None:
        value = input_of(value)
    if only_user(value) is None or op_of(value) not in POINTWISE:
        return None
    sources, region = _pointwise_region(flow, value)
    first = list(dict.fromkeys(behind(source, _PARTS) for source in sources))
    if not all(op_of(n) is op_of(second) and _is_linear_map(n) for n in first):
        return None
    if not any(op_of(n) in ACTIVATIONS for n in region):
        return None
    if len(first) > 1 and any(op_of(n) in SUMS and len(flow.sources(n)) > 1 for n in region):
        return None
    return Neurons(first, value, second, 1 if op_of(second) in CONVS else len(size_of(value)) - 1)


def _pointwise_region(flow: Dataflow, value: Node) -> tuple[list[Node], set[Node]]:
    """The pointwise operations that compute ``value``, and the values they start from."""
    sources: list[Node] = []
    region: set[Node] = set()
    stack = [value]
    while stack:
        node = stack.pop()
        if node in region:
            continue
        if op_of(node) in POINTWISE and size_of(node) == size_of(value):
            region.add(node)
            stack += flow.sources(node)
        elif node not in sources:
            sources.append(node)
    return sources, region


def _is_linear_map(node: Node) -> bool:
    op = op_of(node)
    if op is aten.linear:
        return True
    if op not in CONVS:
        return False
    weight = argument(node, 1, "weight")
    groups = argument(node, 6, "groups", 1)
    return is_tensor(weight) and all(size == 1 for size in size_of(weight)[2:]) and groups == 1


def scaling_nodes(flow: Dataflow) -> set[Node]:
    """Convs and linears on the way from a value to its own multiplier: squeeze-excite and other gates."""
    found: set[Node] = set()
    for node in flow.nodes:
        if op_of(node) is not aten.mul or len(flow.sources(node)) != 2:
            continue
        first, second = flow.sources(node)
        for scaled, scale in ((first, second), (second, first)):
            if scaled is not scale and flow.reaches(scaled, scale):
                found.update(flow.mixing_between(scaled, scale))
    return found
