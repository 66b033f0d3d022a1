"""A graph for inference alone: norms inside the convolutions before them, activations in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyinterp.models.dataflow import argument, batch_norm_after
from pyinterp.models.graph import op_of

aten = torch.ops.aten
_IN_PLACE = {
    aten.relu: aten.relu_.default,
    aten.hardtanh: aten.hardtanh_.default,
    aten.silu: aten.silu_.default,
    aten.hardswish: aten.hardswish_.default,
}
_FRESH = (aten.conv2d, aten.batch_norm, aten.linear)
"""Operations whose result is memory of its own."""
_OF_NORM = ("weight", "bias", "running_mean", "running_var")


def fold(module: GraphModule) -> None:
    """Change a graph so that it gives the same answers, within float rounding, in fewer passes over memory.

    conv then batch norm is one convolution: w' = w gamma / sqrt(var + eps), b' = beta + (b - mean) gamma / sqrt(var +
    eps), taken in float64. An activation overwrites what a convolution, a norm or a linear layer gave it alone. Weights
    of convolutions are stored channels-last, like the images that they meet. None of it has a gradient.

    Args:
        module: Of ATen nodes, its weights as buffers, in eval mode; the buffers' own tensors stay as they are.
    """
    for node in list(module.graph.nodes):
        if op_of(node) is aten.conv2d:
            _fold_norm(module, node, batch_norm_after(node))
        elif op_of(node) in _IN_PLACE:
            source = node.args[0]
            if isinstance(source, Node) and op_of(source) in _FRESH and len(source.users) == 1:
                node.target = _IN_PLACE[op_of(node)]
    module.graph.lint()
    module.recompile()


def _fold_norm(module: GraphModule, conv: Node, norm: Node | None) -> None:
    given = [argument(conv, 1, "weight"), argument(conv, 2, "bias")]
    given += [None] * 4 if norm is None else [argument(norm, i, name) for i, name in enumerate(_OF_NORM, 1)]
    found = [_buffer(module, node) for node in given]
    if any(value is None and node is not None for value, node in zip(found, given, strict=True)):
        return  # a weight that is computed
    weight, bias, gamma, beta, mean, var = found
    assert weight is not None
    if norm is not None:
        assert mean is not None and var is not None  # in eval mode
        scale = (var.double() + argument(norm, 7, "eps")).rsqrt()
        scale = scale if gamma is None else scale * gamma.double()
        shift = (-mean.double() if bias is None else bias.double() - mean.double()) * scale
        bias = (shift if beta is None else shift + beta.double()).to(weight.dtype)
        weight = (weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype)
        norm.replace_all_uses_with(conv)
        module.graph.erase_node(norm)
    new = {"weight": weight.contiguous(memory_format=torch.channels_last), "bias": bias}
    conv.kwargs = {name: value for name, value in conv.kwargs.items() if name not in new}
    with module.graph.inserting_before(conv):
        nodes = [_stored(module, f"folded_{conv.name}_{name}", value) for name, value in new.items()]
    conv.args = (conv.args[0], *nodes, *conv.args[3:])


def _stored(module: GraphModule, name: str, value: Tensor | None) -> Node | None:
    if value is None:
        return None
    module.register_buffer(name, value)
    return module.graph.get_attr(name)


def _buffer(module: GraphModule, node: object) -> Tensor | None:
    """The tensor that a node reads, or None."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, Tensor) else None
