"""A stretch of a network as a module of its own, between the values it reads and the values it gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Graph, GraphModule, Node

from pyinterp.games.reach import is_size
from pyinterp.models.graph import TracedModel, op_of

aten = torch.ops.aten


def cut_out(traced: TracedModel, inputs: Sequence[Node], outputs: Sequence[Node]) -> GraphModule:
    """forward(*inputs) -> tuple of outputs; weights are shared.

    Args:
        traced: The network.
        inputs: Values that carry images; every path from the images to an output passes one of them.
        outputs: What the module gives.
    """
    graph = Graph()
    copies = {node: graph.placeholder(f"value_{i}") for i, node in enumerate(inputs)}
    first = copies[inputs[0]]
    todo = list(outputs)
    while todo:
        node = todo[-1]
        missing = [n for n in node.all_input_nodes if n not in copies and not _is_batch(node)]
        if node in copies or missing:
            todo += missing
            if not missing:
                todo.pop()
            continue
        todo.pop()
        if _is_batch(node):
            copies[node] = graph.call_function(aten.sym_size.int, (first, 0))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    graph.lint()
    return GraphModule(traced.module, graph, class_name="Segment").eval()


def _is_batch(node: Node) -> bool:
    """Whether a node reads how many images there are."""
    return is_size(node) and op_of(node) is aten.sym_size and node.args[1] == 0
