"""Fold per-channel scales and shifts into the weights beside them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.flow.build import Affine, Builder, Weighted

aten = torch.ops.aten


def simplify(build: Builder) -> None:
    """Fold every marked scale and shift into the weights before it, or the scale into those after it.

    Equivalent to writing each out; what has no neighbour to go to is written out.
    """
    for node in list(build.affine):
        _into_producer(build, node)
    for node in list(build.affine):
        _into_consumer(build, node)
    for node, found in build.affine.items():
        _write_out(build, node, found)
    build.affine.clear()


def _drop(build: Builder, node: Node, replacement: Node) -> None:
    node.replace_all_uses_with(replacement)
    build.graph.erase_node(node)
    del build.affine[node]


def _into_producer(build: Builder, node: Node) -> None:
    found, x = build.affine[node], node.args[0]
    assert isinstance(x, Node)
    if len(x.users) != 1:
        return
    weights, before = build.weighted.get(x), build.affine.get(x)
    if weights is not None and weights.output_axis == found.axis:
        weights.weight = _scaled(weights.weight, found.scale, 0)
        if weights.bias is not None or found.shift is not None:
            weights.bias = _affine(weights, found)
        _drop(build, node, x)
    elif before is not None and before.axis == found.axis:
        shift = None if before.shift is None else before.shift * found.scale
        if found.shift is not None:
            shift = found.shift if shift is None else shift + found.shift
        before.scale, before.shift = before.scale * found.scale, shift
        _drop(build, node, x)


def _into_consumer(build: Builder, node: Node) -> None:
    found = build.affine[node]
    if found.shift is not None or len(node.users) != 1:
        return
    weights = build.weighted.get(next(iter(node.users)))
    if weights is None or weights.input_axis != found.axis:
        return
    if weights.groups == 1:
        weights.weight = _scaled(weights.weight, found.scale, 1)
    elif weights.weight.shape[1] == 1 and weights.weight.shape[0] == weights.groups == len(found.scale):
        weights.weight = _scaled(weights.weight, found.scale, 0)
    else:
        return
    x = node.args[0]
    assert isinstance(x, Node)
    _drop(build, node, x)


def _scaled(weight: Tensor, scale: Tensor, axis: int) -> Tensor:
    shape = [1] * weight.dim()
    shape[axis] = -1
    return (weight.double() * scale.to(weight.device).view(shape)).to(weight.dtype)


def _affine(weights: Weighted, found: Affine) -> Tensor:
    device, dtype = weights.weight.device, weights.weight.dtype
    total = torch.zeros_like(found.scale, device=device)
    if weights.bias is not None:
        total = weights.bias.double() * found.scale.to(device)
    if found.shift is not None:
        total = total + found.shift.to(device)
    return total.to(dtype)


def _write_out(build: Builder, node: Node, found: Affine) -> None:
    x = node.args[0]
    with build.graph.inserting_before(node):
        if found.axis == 1 and found.shift is not None:
            scale, shift, one, zero = (
                build.register(name, value.to(build.flow.device, found.dtype), trained)
                for name, value, trained in (
                    ("scale", found.scale, True),
                    ("shift", found.shift, True),
                    ("one", torch.ones_like(found.scale), False),
                    ("zero", torch.zeros_like(found.scale), False),
                )
            )
            value = build.call(aten.batch_norm.default, x, scale, shift, zero, one, False, 0.0, 0.0, False)
        else:
            value = x  # type: ignore[assignment]
            if not bool((found.scale == 1).all()):
                scale = build.vector("scale", found.scale, found.axis, found.rank, found.dtype)
                value = build.call(aten.mul.Tensor, value, scale)
            if found.shift is not None:
                shift = build.vector("shift", found.shift, found.axis, found.rank, found.dtype)
                value = build.call(aten.add.Tensor, value, shift)
    node.replace_all_uses_with(value)
    build.graph.erase_node(node)
