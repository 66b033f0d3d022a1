"""Parameters and multiply-accumulates of a network that stands as a graph."""

from __future__ import annotations

from collections.abc import Sequence
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
    return sum(trained.values()), sum(work_of_nodes(module, input_shape, dtype).values())


def work_of_nodes(
    module: GraphModule, input_shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> dict[Node, int]:
    """Multiply-accumulates of every call of a graph module for one input of this shape (without the batch axis)."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        walk = _Walk(module)
        walk.run(torch.empty(1, *input_shape, dtype=dtype, device=_device(module)))
    return walk.macs


def _device(module: nn.Module) -> torch.device:
    return next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))


class _Walk(Interpreter):
    """Runs the graph on shapes alone and notes the work of each call."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.macs: dict[Node, int] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op == "call_function":
            self.macs[n] = self._work(n, result)
        return result

    def _work(self, node: Node, result: Tensor) -> int:
        operation = op_of(node)
        if operation in (aten.conv1d, aten.conv2d, aten.conv3d):
            return result.numel() * self._value(node, "weight")[0].numel()
        if operation is aten.linear:
            return result.numel() * int(self._value(node, "weight").shape[-1])
        if operation in (aten.matmul, aten.bmm):
            return result.numel() * int(self.env[node.args[0]].shape[-1])  # type: ignore[index]
        if operation is aten.scaled_dot_product_attention:
            query, key = self._value(node, "query"), self._value(node, "key")
            scores = query[..., 0].numel() * int(key.shape[-2])
            return scores * int(query.shape[-1]) + scores * int(result.shape[-1])
        return 0

    def _value(self, node: Node, name: str) -> Tensor:
        value: Tensor = self.env[bound(node)[name]]
        return value
