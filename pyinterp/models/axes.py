"""Where an axis of a value goes as views, permutations and selections move it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Graph, Node

from pyinterp.models.dataflow import IDENTITY, RESHAPES, argument, input_of
from pyinterp.models.graph import is_getitem, is_tensor, op_of, size_of

aten = torch.ops.aten

_KEEPS_AXES = IDENTITY | {
    aten.roll, aten.pad, aten.constant_pad_nd, aten.slice, aten.chunk, aten.split, aten.split_with_sizes,
    aten.tensor_split,
}  # fmt: skip
_SELECTS = {aten.select, aten.unbind}
_REDUCTIONS = {aten.mean, aten.sum, aten.amax, aten.amin, aten.var, aten.std, aten.argmax, aten.logsumexp}


@dataclass(frozen=True)
class Place:
    """A logical axis inside an actual one: of index i along ``axis``, it is (i // after) modulo its own length."""

    axis: int
    after: int = 1


FIRST = Place(0)


def move(node: Node, place: Place) -> Place | None:
    """The place behind a movement operation, from that at its first input; None where it is lost."""
    op, source = op_of(node), input_of(node)
    if is_getitem(node):
        return place
    rank = len(_sizes(source))
    if op in RESHAPES:
        return _reshape(_sizes(source), _sizes(node), place)
    if op is aten.permute:
        return replace(place, axis=[d % rank for d in argument(node, 1, "dims")].index(place.axis))
    if op in (aten.transpose, aten.t):
        first, second = (
            (0, 1) if op is aten.t else (argument(node, 1, "dim0") % rank, argument(node, 2, "dim1") % rank)
        )
        return replace(place, axis={first: second, second: first}.get(place.axis, place.axis))
    if op in _SELECTS:
        dim = argument(node, 1, "dim", 0) % rank
        return None if dim == place.axis else replace(place, axis=place.axis - (dim < place.axis))
    if op is aten.expand:
        return replace(place, axis=place.axis + len(_sizes(node)) - rank)
    return place if op in _KEEPS_AXES else None


def _sizes(node: Node) -> tuple[Any, ...]:
    value = node.meta["val"]
    return tuple((value[0] if isinstance(value, (list, tuple)) else value).shape)


def _reshape(before: tuple[Any, ...], after: tuple[Any, ...], place: Place) -> Place | None:
    """Follow the axis by its stride in row-major order, which a view keeps."""
    stride: Any = place.after
    for size in before[place.axis + 1 :]:
        stride = stride * size
    if not isinstance(stride, int):
        return None
    inner = 1
    for axis in range(len(after) - 1, -1, -1):
        size = after[axis]
        if not isinstance(size, int) or stride < inner * size:
            return Place(axis, stride // inner) if stride % inner == 0 else None
        inner *= size
    return None


def sample_places(graph: Graph) -> dict[Node, Place]:
    """Where the batch axis lies in every value: window attention and token-first layouts move it."""
    places: dict[Node, Place] = {}
    for node in graph.nodes:
        place = FIRST if node.op == "placeholder" else _sample_place(node, places)
        if place is not None and (not is_tensor(node) or isinstance(size_of(node)[place.axis], torch.SymInt)):
            places[node] = place
    return places


def _sample_place(node: Node, places: dict[Node, Place]) -> Place | None:
    source = next((n for n in node.all_input_nodes if n in places), None)
    if source is None or node.op != "call_function":
        return None
    place, op = places[source], op_of(node)
    if source is input_of(node) and (op in _SELECTS | RESHAPES | _KEEPS_AXES or is_getitem(node)):
        return move(node, place)
    if op in (aten.permute, aten.transpose, aten.t, aten.expand):
        return move(node, place)
    first = place if place == FIRST else None  # what an unknown operation leaves in front
    if not is_tensor(node):
        return first
    if op in _REDUCTIONS:
        return _reduce(node, source, place)
    gained = len(size_of(node)) - len(_sizes(source))
    return replace(place, axis=place.axis + gained) if gained >= 0 else first


def _reduce(node: Node, source: Node, place: Place) -> Place | None:
    rank = len(_sizes(source))
    dims = argument(node, 1, "dim")
    if dims is None:
        return None
    reduced = {d % rank for d in ([dims] if isinstance(dims, int) else dims)}
    if place.axis in reduced:
        return None
    if len(size_of(node)) == rank:
        return place
    return replace(place, axis=place.axis - sum(d < place.axis for d in reduced))
