"""Parameters and multiply-accumulates of a network that stands as a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node

from pyinterp.models.flow.plan import attribute, bound
from pyinterp.models.graph import op_of

aten = torch.ops.aten


def count(module: GraphModule, input_shape: Sequence[int]) -> tuple[int, int]:
    """Size and work of a graph module ``forward(x) -> logits`` for one input.

    Args:
        module: ``TracedModel.module``, or what `pyinterp.models.shrink.fold` returns.
        input_shape: Shape of one input without the batch axis.

    Returns:
        (parameters, macs): trained numbers that the graph reads (BatchNorm's running statistics and other buffers are
        not), and multiply-accumulates of convolutions, linear maps, matrix products and attention.
    """
    trained = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = attribute(module, node.target)
            if isinstance(value, nn.Parameter) or node.meta.get("parameter", False):
                trained[node.target] = value.numel()
    dtype = next(
        (t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), torch.float32
    )
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        walk = _Walk(module)
        walk.run(torch.empty(1, *input_shape, dtype=dtype, device=_device(module)))
    return sum(trained.values()), walk.macs


def _device(module: nn.Module) -> torch.device:
    return next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))


class _Walk(Interpreter):
    """Runs the graph on shapes alone and adds up the work."""

    macs = 0

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op == "call_function":
            self.macs += work(n, lambda value: result.shape if value is n else self.env[value].shape)
        return result


def work(node: Node, shape: Callable[[Node], Sequence[int]]) -> int:
    """Multiply-accumulates of one call, by the shapes of its result and inputs; 0 for what is no product.

    Args:
        node: A node of a graph.
        shape: Gives the shape of any tensor node.
    """
    operation = op_of(node)
    if operation in (aten.conv1d, aten.conv2d, aten.conv3d):
        return math.prod(shape(node)) * math.prod(shape(bound(node)["weight"])[1:])
    if operation is aten.linear:
        return math.prod(shape(node)) * shape(bound(node)["weight"])[-1]
    if operation in (aten.matmul, aten.bmm):
        return math.prod(shape(node)) * shape(node.args[0])[-1]  # type: ignore[arg-type]
    if operation is aten.scaled_dot_product_attention:
        query, key = shape(bound(node)["query"]), shape(bound(node)["key"])
        return math.prod(query[:-1]) * key[-2] * (query[-1] + shape(node)[-1])
    return 0
