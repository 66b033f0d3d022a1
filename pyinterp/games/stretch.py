"""A stretch of a network as a module of its own, between the values it reads and the values it gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Graph, GraphModule, Node

from pyinterp.games.reach import batch_symbol, is_batch_size
from pyinterp.models.fold import fold
from pyinterp.models.graph import TracedModel

aten = torch.ops.aten


def cut_out(traced: TracedModel, inputs: Sequence[Node], outputs: Sequence[Node]) -> GraphModule:
    """forward(*inputs) -> tuple of outputs, for inference alone: see `fold`.

    Args:
        traced: The network.
        inputs: Values that carry images; every path from the images to an output passes one of them.
        outputs: What the module gives.
    """
    graph, batch = Graph(), batch_symbol(traced)
    copies = {node: graph.placeholder(f"value_{i}") for i, node in enumerate(inputs)}
    first = copies[inputs[0]]
    todo = list(outputs)
    while todo:
        node = todo.pop()
        if node in copies:
            continue
        if is_batch_size(node, batch):
            copies[node] = graph.call_function(aten.sym_size.int, (first, 0))
        elif missing := [source for source in node.all_input_nodes if source not in copies]:
            todo += [node, *missing]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    graph.lint()
    segment = GraphModule(traced.module, graph, class_name="Segment").eval()
    fold(segment)
    return segment
