"""Which players can influence which position of every value of a network: receptive fields, read from its graph.

A value's reach is a bool map (n, H, W), True where player i may change what stands at that position. It may be too
large, never too small: an operation without a rule here (global pooling, attention, flatten, squeeze and excite)
counts as mixing everything, and so does all that follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from pyinterp.models.dataflow import ACTIVATIONS, IDENTITY, POINTWISE, RESHAPES
from pyinterp.models.flow.plan import bound
from pyinterp.models.graph import TracedModel, is_getitem, is_tensor, op_of, size_of

aten = torch.ops.aten


@dataclass(frozen=True)
class Reach:
    """Who can influence a value, position by position.

    Attributes:
        map: bool (n, H, W) on the CPU: player i may change the value at (h, w).
        axes: Which two axes of the value are H and W.
    """

    map: Tensor
    axes: tuple[int, int]


def find_reach(traced: TracedModel, players: Tensor) -> dict[Node, Reach]:
    """Reach of every value of which one is known; players may change all of any other value.

    Args:
        traced: The network.
        players: (H, W) int64, the player of every pixel; negative: of none, the pixel is the same in all subsets.
            A map of other dimensions (columns, tokens) has no positions: nothing is known.
    """
    known = _Known({}, carries_images(traced))
    if players.dim() != 2:
        return known.reach
    batch = batch_symbol(traced)
    for node in traced.graph.nodes:
        reach: Reach | None
        if node.op == "placeholder":
            rank, count = len(size_of(node)), int(players.max()) + 1
            reach = Reach(players.cpu() == torch.arange(count)[:, None, None], (rank - 2, rank - 1))
        else:
            reach = _reach(node, known)
        if reach is not None and _fits(node, reach, batch):
            known.reach[node] = reach
    return known.reach


def carries_images(traced: TracedModel) -> set[Node]:
    """The values that depend on the images, by more than how many they are."""
    live: set[Node] = set()
    batch = batch_symbol(traced)
    for node in traced.graph.nodes:
        read = live.intersection(node.all_input_nodes) and not is_batch_size(node, batch)
        if node.op == "placeholder" or read:
            live.add(node)
    return live


def batch_symbol(traced: TracedModel) -> Any:
    """The number of images, as it stands in the shapes of the graph."""
    return next(size_of(n)[0].node.expr for n in traced.graph.nodes if n.op == "placeholder")


def is_batch_size(node: Node, batch: Any) -> bool:
    """Whether a node reads off a value how many images there are."""
    return op_of(node) is aten.sym_size and bool(_symbol(node.meta["val"]) == batch)


def _symbol(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else size


def _fits(node: Node, reach: Reach, batch: Any) -> bool:
    """Whether the first axis is still the batch and the reach's axes have the map's size."""
    values = node.meta["val"] if isinstance(node.meta["val"], (tuple, list)) else [node.meta["val"]]
    h, w = reach.axes
    return all(
        min(h, w) > 0
        and max(h, w) < value.dim()
        and _symbol(value.shape[0]) == batch
        and (value.shape[h], value.shape[w]) == reach.map.shape[1:]
        for value in values
    )


@dataclass(frozen=True)
class _Known:
    """What has been found so far: reaches, and which values carry images at all."""

    reach: dict[Node, Reach]
    live: set[Node]


def _reach(node: Node, known: _Known) -> Reach | None:
    """Reach of a call, or None where it has no rule or an input is not known."""
    if node.op != "call_function" or node.meta.get("val") is None:
        return None
    if is_getitem(node):
        return _first(node, known)
    target = node.target
    rule = _RULES.get(op_of(node))
    if rule is None and isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags:
        rule = _pointwise
    return None if rule is None else rule(node, known)


Rule = Callable[[Node, _Known], Reach | None]
_RULES: dict[Any, Rule] = {}


def _rule(*operations: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(operations, rule))
        return rule

    return register


def _first(node: Node, known: _Known, ahead: bool = False) -> Reach | None:
    """Reach of the first argument; ``ahead``: only where H and W are the last two of its four axes."""
    reach = known.reach.get(node.args[0])  # type: ignore[arg-type]
    return None if reach is None or (ahead and reach.axes != (2, 3)) else reach


def _image(reach: Reach) -> Tensor:
    """The map as a batch of one-channel images."""
    return reach.map[:, None].float()


def _from_image(image: Tensor) -> Reach:
    return Reach(image[:, 0] > 0, (2, 3))


@_rule(*ACTIVATIONS, *POINTWISE, aten.where)
def _pointwise(node: Node, known: _Known) -> Reach | None:
    """Union over the inputs; one with a single row or column is there at all of them."""
    rank = len(size_of(node))
    union: Reach | None = None
    for source in node.all_input_nodes:
        if source not in known.live:
            continue
        reach = known.reach.get(source)
        if reach is None or len(size_of(source)) != rank or (union and union.axes != reach.axes):
            return None
        h, w = reach.axes
        map = reach.map.expand(-1, size_of(node)[h], size_of(node)[w])
        union = Reach(map | union.map if union else map, reach.axes)
    return union


@_rule(*IDENTITY)
def _same(node: Node, known: _Known) -> Reach | None:
    return _first(node, known)


@_rule(aten.batch_norm)
def _batch_norm(node: Node, known: _Known) -> Reach | None:
    return None if bound(node)["training"] else _first(node, known)


@_rule(aten.layer_norm)
def _layer_norm(node: Node, known: _Known) -> Reach | None:
    reach, kept = _first(node, known), len(size_of(node)) - len(bound(node)["normalized_shape"])
    return reach if reach and max(reach.axes) < kept else None


@_rule(aten.linear)
def _linear(node: Node, known: _Known) -> Reach | None:
    reach = _first(node, known)
    return reach if reach and max(reach.axes) < len(size_of(node)) - 1 else None


@_rule(aten.conv2d)
def _conv(node: Node, known: _Known) -> Reach | None:
    reach, call = _first(node, known, ahead=True), bound(node)
    if reach is None:
        return None
    kernel = torch.ones(1, 1, *size_of(call["weight"])[2:])
    return _from_image(
        F.conv2d(_image(reach), kernel, None, call["stride"], call["padding"], call["dilation"])
    )


@_rule(aten.max_pool2d, aten.avg_pool2d)
def _pool(node: Node, known: _Known) -> Reach | None:
    reach, call = _first(node, known, ahead=True), bound(node)
    if reach is None:
        return None
    return _from_image(
        F.max_pool2d(
            _image(reach),
            call["kernel_size"],
            call["stride"] or None,
            call["padding"],
            call.get("dilation", 1),
            call["ceil_mode"],
        )
    )


@_rule(aten.adaptive_avg_pool2d, aten.adaptive_max_pool2d)
def _adaptive_pool(node: Node, known: _Known) -> Reach | None:
    reach = _first(node, known, ahead=True)
    return (
        None
        if reach is None
        else _from_image(F.adaptive_max_pool2d(_image(reach), bound(node)["output_size"]))
    )


@_rule(aten.pad, aten.constant_pad_nd)
def _pad(node: Node, known: _Known) -> Reach | None:
    reach, call = _first(node, known, ahead=True), bound(node)
    if reach is None:
        return None
    return _from_image(F.pad(_image(reach), call["pad"][:4], mode=call.get("mode", "constant")))


@_rule(aten.cat)
def _cat(node: Node, known: _Known) -> Reach | None:
    reach = known.reach.get(node.all_input_nodes[0])
    return _pointwise(node, known) if reach and _axis(node) not in reach.axes else None


@_rule(aten.split, aten.split_with_sizes, aten.chunk)
def _split(node: Node, known: _Known) -> Reach | None:
    reach = _first(node, known)
    return reach if reach and _axis(node) not in reach.axes else None


@_rule(aten.slice)
def _slice(node: Node, known: _Known) -> Reach | None:
    reach, call = _first(node, known), bound(node)
    if reach is None or _axis(node) not in reach.axes:
        return reach
    cut = slice(call["start"], call["end"], call["step"])
    return Reach(reach.map[:, cut] if _axis(node) == reach.axes[0] else reach.map[:, :, cut], reach.axes)


def _axis(node: Node) -> int:
    """The axis along which a call cuts or joins, counted from the front."""
    value = node.meta["val"]
    rank = (value if isinstance(value, Tensor) else value[0]).dim()
    return int(bound(node)["dim"] or 0) % rank


@_rule(aten.permute, aten.transpose)
def _permute(node: Node, known: _Known) -> Reach | None:
    reach, rank = _first(node, known), len(size_of(node))
    if reach is None:
        return None
    order = list(range(rank))
    if op_of(node) is aten.permute:
        order = [int(dim) % rank for dim in bound(node)["dims"]]
    else:
        a, b = (int(bound(node)[name]) % rank for name in ("dim0", "dim1"))
        order[a], order[b] = b, a
    h, w = reach.axes
    return Reach(reach.map, (order.index(h), order.index(w)))


@_rule(*RESHAPES)
def _reshape(node: Node, known: _Known) -> Reach | None:
    """Channels apart or together (a shuffle), while H and W stay the last two axes."""
    reach = _first(node, known)
    if reach is None or not is_tensor(node):
        return None
    before, after = size_of(node.args[0]), size_of(node)  # type: ignore[arg-type]
    last = (len(before) - 2, len(before) - 1)
    if reach.axes != last or len(after) < 3 or math.prod(after[1:]) != math.prod(before[1:]):
        return None
    return Reach(reach.map, (len(after) - 2, len(after) - 1)) if after[-2:] == before[-2:] else None
