"""What no gate reaches is computed once: a gated network in two parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from pyinterp.models.gating import channels_last


class SplitNetwork:
    """A gated network that remembers, for the last images it saw, all that does not depend on the scores.

    In a convolutional network that is the padding and the first convolution, in a vision transformer the embedding of
    the patches.

    Args:
        module: forward(images, group, *scores), functional, with frozen weights.

    Attributes:
        remembered: The last images, and what of them does not depend on the scores.
    """

    def __init__(self, module: GraphModule) -> None:
        self._first, self._rest = _split(module)
        self.remembered: tuple[Tensor | None, Any] = (None, ())

    def __call__(self, images: Tensor, group: Tensor | None, *scores: Tensor) -> Tensor:
        """Logits. Images that are the same object as the last ones are taken to be unchanged."""
        if images is not self.remembered[0]:
            with torch.no_grad():
                self.remembered = (images, self._first(channels_last(images)))
        return self._rest(*self.remembered[1], group, *scores)  # type: ignore[no-any-return]


def _split(module: GraphModule) -> tuple[GraphModule, GraphModule]:
    """images -> the values that the rest reads; and those values, group, *scores -> logits."""
    nodes = list(module.graph.nodes)
    late = set([node for node in nodes if node.op == "placeholder"][1:])
    for node in nodes:
        if node.op == "output" or late.intersection(node.all_input_nodes):
            late.add(node)
    weights = {node for node in nodes if node.op == "get_attr"}
    border = [n for n in nodes if n not in late | weights and late.intersection(n.users)]

    first = Graph()
    copies: dict[Node, Node] = {}
    for node in nodes:
        if node not in late:
            copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[node] for node in border))
    first.eliminate_dead_code()

    rest = Graph()
    copies = {node: rest.placeholder(f"first_{i}") for i, node in enumerate(border)}
    for node in nodes:
        if node in late or node in weights:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    rest.eliminate_dead_code()
    return _module(module, first), _module(module, rest)


def _module(root: nn.Module, graph: Graph) -> GraphModule:
    graph.lint()
    return GraphModule(root, graph)
