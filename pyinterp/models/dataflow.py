"""What the operations of a traced network do to units, and who depends on whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch.fx import Graph, Node

from pyinterp.models.graph import is_getitem, op_of

aten = torch.ops.aten

CONVS = {aten.conv1d, aten.conv2d, aten.conv3d}
TRANSPOSED_CONVS = {aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d}
PRODUCTS = {
    aten.matmul,
    aten.bmm,
    aten.mm,
    aten.baddbmm,
    aten.addmm,
    aten.einsum,
    aten.scaled_dot_product_attention,
}
MIXING = CONVS | TRANSPOSED_CONVS | PRODUCTS | {aten.linear, aten.convolution, aten.bilinear}
"""Operations that mix units: each output unit reads many input units."""

IDENTITY = {aten.contiguous, aten.clone, aten.alias, aten.to, aten._to_copy, aten.type_as}
RESHAPES = {
    aten.view,
    aten.view_as,
    aten.reshape,
    aten.reshape_as,
    aten._unsafe_view,
    aten.flatten,
    aten.unflatten,
    aten.unsqueeze,
    aten.squeeze,
}
MOVEMENT = IDENTITY | RESHAPES | {
    aten.permute, aten.transpose, aten.t, aten.expand, aten.roll, aten.pad, aten.constant_pad_nd, aten.slice,
}  # fmt: skip
"""Operations that only move values (or add zeros, or leave some out)."""

POOLS = {
    aten.max_pool2d, aten.avg_pool2d, aten.adaptive_avg_pool2d, aten.adaptive_max_pool2d, aten.avg_pool1d,
    aten.avg_pool3d, aten.max_pool1d, aten.max_pool3d, aten.upsample_nearest2d, aten.upsample_bilinear2d,
}  # fmt: skip

FACTORIES = {
    aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like, aten.rand_like,
    aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty,
}  # fmt: skip
"""Operations that read a value's shape and dtype alone."""

ACTIVATIONS = {
    aten.relu, aten.relu6, aten.hardtanh, aten.clamp, aten.clamp_min, aten.leaky_relu, aten.elu, aten.selu, aten.celu,
    aten.gelu, aten.silu, aten.mish, aten.hardswish, aten.hardsigmoid, aten.sigmoid, aten.tanh, aten.softplus,
    aten.prelu, aten.erf, aten.pow, aten.exp, aten.abs, aten.square, aten.log_sigmoid,
}  # fmt: skip
"""Nonlinear functions of one value."""

SUMS = {aten.add, aten.sub}
POINTWISE = ACTIVATIONS | SUMS | {aten.mul, aten.div, aten.neg, aten.rsub}


class Dataflow:
    """Ancestors and descendants among the nodes that carry the images' data (not weights, not sizes)."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = list(graph.nodes)
        self._place = {node: i for i, node in enumerate(self.nodes)}
        self._ancestors: dict[Node, int] = {}
        for node in self.nodes:
            mask = 0
            for source in node.all_input_nodes:
                mask |= self._ancestors.get(source, 0)
            if node.op == "placeholder" or (mask and not _is_size(node) and op_of(node) not in FACTORIES):
                self._ancestors[node] = mask | (1 << self._place[node])
        self._descendants: dict[Node, int] = {}
        for node in reversed(self.nodes):
            if node in self._ancestors:
                mask = 1 << self._place[node]
                for user in node.users:
                    mask |= self._descendants.get(user, 0)
                self._descendants[node] = mask
        self._mixing = sum(1 << self._place[n] for n in self._ancestors if op_of(n) in MIXING)

    def carries_data(self, node: Any) -> bool:
        """Whether the node's value depends on the images' values."""
        return node in self._ancestors

    def sources(self, node: Node) -> list[Node]:
        """The node's inputs that carry data."""
        return [n for n in node.all_input_nodes if n in self._ancestors]

    def position(self, node: Node) -> int:
        return self._place[node]

    def reaches(self, source: Node, node: Node) -> bool:
        """Whether ``node`` is ``source`` or depends on it."""
        return bool(self._ancestors[node] >> self._place[source] & 1)

    def mixing_between(self, source: Node, node: Node) -> list[Node]:
        """The unit-mixing nodes on the paths from ``source`` (left out) to ``node`` (included)."""
        mask = self._ancestors[node] & self._descendants[source] & self._mixing
        return [n for n in self._members(mask) if n is not source]

    def cuts(self) -> set[Node]:
        """Nodes that every path from the images to the logits passes."""
        data = [n for n in self.nodes if n in self._ancestors]
        found, farthest = set(), 0
        for node in data:
            if farthest <= self._place[node]:
                found.add(node)
            farthest = max([farthest, *(self._place[user] for user in node.users if user in self._ancestors)])
        return found

    def last_mixing(self) -> set[Node]:
        """The mixing nodes whose outputs reach the logits without being mixed again: the classifier."""
        found, seen, stack = set(), set(), [self.nodes[-1]]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if op_of(node) in MIXING:
                found.add(node)
            else:
                stack += self.sources(node)
        return found

    def _members(self, mask: int) -> Iterator[Node]:
        while mask:
            low = mask & -mask
            yield self.nodes[low.bit_length() - 1]
            mask ^= low


def _is_size(node: Node) -> bool:
    return isinstance(node.meta.get("val"), (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool))


def input_of(node: Node) -> Node:
    """The first argument of a call, which is its data."""
    return cast(Node, node.args[0])


def only_user(node: Node) -> Node | None:
    """The single user of a value, or None."""
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def argument(node: Node, index: int, name: str, default: Any = None) -> Any:
    """An argument given by position or by name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def weight_of(node: Node) -> str | None:
    """Dotted name in the user's model of the weight of a conv or linear; None where the weight is computed."""
    weight = argument(node, 1, "weight")
    return weight.meta.get("weight") if isinstance(weight, Node) and weight.op == "get_attr" else None


def path_of(node: Node) -> str:
    """Where a conv or linear stands in the user's model: its module, else its weight, else its node."""
    weight = weight_of(node)
    if weight is None:
        return node.meta.get("module") or node.name
    return weight.removesuffix(".weight") if weight != "weight" else node.name


def batch_norm_after(node: Node) -> Node | None:
    """The eval-mode BatchNorm that alone reads a value."""
    user = only_user(node)
    if user is None or op_of(user) is not aten.batch_norm or input_of(user) is not node:
        return None
    return None if argument(user, 5, "training") else user


def behind(node: Node, ops: set[Any]) -> Node:
    """Walk back from a value through operations of ``ops``."""
    while op_of(node) in ops or is_getitem(node):
        node = input_of(node)
    return node
