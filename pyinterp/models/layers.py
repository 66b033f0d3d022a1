"""Layers that can be bypassed: residual branches, and plain convolutions that keep their input's shape."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.fx import Node

from pyinterp.models.axes import Place, move
from pyinterp.models.dataflow import (
    ACTIVATIONS,
    CONVS,
    MIXING,
    MOVEMENT,
    POOLS,
    Dataflow,
    argument,
    batch_norm_after,
    input_of,
    only_user,
    path_of,
)
from pyinterp.models.graph import is_getitem, is_tensor, op_of, size_of

aten = torch.ops.aten

_FITS_STREAM = MOVEMENT | POOLS | {aten.batch_norm, aten.cat}
"""What a shortcut may do to fit the stream to the branch's output, beside one conv or linear."""


@dataclass(frozen=True)
class Residual:
    """stream + branch, where the branch computes more than the stream on its way from their common value.

    Attributes:
        add: The node of the sum.
        stream: Its operand on the shortcut.
        branch: Its operand to gate.
        inside: Convs, linears and products of the branch.
        shortcut: The conv or linear that fits the stream to the branch (ResNet's downsample), if any.
    """

    add: Node
    stream: Node
    branch: Node
    inside: list[Node]
    shortcut: list[Node]


@dataclass(frozen=True)
class Plain:
    """A conv that every path passes and that keeps its input's shape, with the BatchNorm and activation behind it."""

    conv: Node
    source: Node
    output: Node


@dataclass(frozen=True)
class Layers:
    residuals: list[Residual] = field(default_factory=list)
    plain: list[Plain] = field(default_factory=list)

    @property
    def streams(self) -> set[Node]:
        """Values that pass a block unchanged."""
        return {residual.stream for residual in self.residuals}

    @property
    def shortcuts(self) -> set[Node]:
        """Convs and linears that only fit a stream to its block's output."""
        return {node for residual in self.residuals for node in residual.shortcut}


def find_layers(flow: Dataflow, filters: set[Node]) -> Layers:
    """Find every layer that can be bypassed; ``filters`` are the convs whose filters are units."""
    residuals: dict[Node, Residual] = {}
    for node in flow.nodes:
        found = _residual(flow, node, residuals)
        if found is not None:
            residuals[node] = found
    shortcuts = {node for residual in residuals.values() for node in residual.shortcut}
    cuts = flow.cuts()
    plain = [
        _plain(node)
        for node in flow.nodes
        if node in filters - shortcuts and node in cuts and _keeps_shape(node)
    ]
    return Layers(list(residuals.values()), plain)


def _residual(flow: Dataflow, node: Node, known: dict[Node, Residual]) -> Residual | None:
    if op_of(node) is not aten.add or len(flow.sources(node)) != 2 or argument(node, 2, "alpha", 1) != 1:
        return None
    first, second = flow.sources(node)
    if size_of(first) != size_of(second):
        return None
    candidates = []
    for stream, branch in ((first, second), (second, first)):
        root = _root(flow, stream, branch, known)
        if root is None:
            continue
        shortcut = flow.mixing_between(root, stream)
        inside = [n for n in flow.mixing_between(root, branch) if n not in shortcut]
        if len(inside) > len(shortcut):
            candidates.append(Residual(node, stream, branch, inside, shortcut))
    return min(candidates, key=lambda found: len(found.shortcut), default=None)


def _root(flow: Dataflow, stream: Node, branch: Node, known: dict[Node, Residual]) -> Node | None:
    """Walk back along the shortcut to a value that the branch was computed from."""
    mixed = 0
    while not flow.reaches(stream, branch):
        op = op_of(stream)
        if op in MIXING:
            mixed += 1
        if stream in known:
            stream = known[stream].stream
        elif (op in MIXING or op in _FITS_STREAM or is_getitem(stream)) and mixed <= 1:
            sources = flow.sources(stream)
            if len(sources) != 1:
                return None
            stream = sources[0]
        else:
            return None
    return stream


def _keeps_shape(conv: Node) -> bool:
    return size_of(conv) == size_of(input_of(conv))


def _plain(conv: Node) -> Plain:
    output = batch_norm_after(conv) or conv
    user = only_user(output)
    if user is not None and op_of(user) in ACTIVATIONS and size_of(user) == size_of(conv):
        output = user
    return Plain(conv, input_of(conv), output)


def layer_name(nodes: list[Node], otherwise: str) -> str:
    """The deepest module that holds all of a layer's convs and linears."""
    paths = [path_of(n).split(".") for n in nodes if n.op == "call_function" and _has_weight(n)]
    if not paths:
        return otherwise
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common) or otherwise


def _has_weight(node: Node) -> bool:
    return op_of(node) in CONVS or op_of(node) is aten.linear


def channel_axis(flow: Dataflow, value: Node) -> int:
    """The axis of ``value`` along which the conv or linear behind it writes its units; the last one if unknown."""
    path = [value]
    while op_of(path[-1]) not in MIXING and path[-1].op == "call_function":
        sources = [n for n in flow.sources(path[-1]) if is_tensor(n)]
        if not sources:
            break
        path.append(sources[0])
    producer, *rest = reversed(path)
    place: Place | None = Place(1 if op_of(producer) in CONVS else len(size_of(producer)) - 1)
    for node in rest:
        if op_of(node) in MOVEMENT and place is not None:
            place = move(node, place)
    return place.axis if place is not None and place.axis < len(size_of(value)) else len(size_of(value)) - 1
