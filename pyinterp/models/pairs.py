"""Units that are of no use without each other: a filter, and the depthwise filter that alone reads it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.models.dataflow import CONVS, IDENTITY, POINTWISE, argument, input_of, only_user
from pyinterp.models.graph import TracedModel, op_of, size_of
from pyinterp.models.sites import Site


def depthwise_readers(traced: TracedModel, sites: Sequence[Site]) -> Tensor:
    """Which unit alone reads a unit, where filter i of a depthwise conv sees nothing but channel i of another site.

    Args:
        traced: The network.
        sites: Its sites, whose units follow each other.

    Returns:
        (units_total,) int64: the unit that alone reads this one; -1 where there is none.
    """
    places = {node.name: node for node in traced.graph.nodes}
    starts, total = {}, 0
    for site in sites:
        starts[site.name] = total
        total += site.units
    gated = {places[site.node]: site for site in sites if site.kind == "filter"}
    readers = torch.full((total,), -1)
    for node, site in gated.items():
        source = _only_source(node, gated)
        if source is not None and gated[source].units == site.units:
            units = torch.arange(site.units)
            readers[starts[gated[source].name] + units] = starts[site.name] + units
    return readers


def _only_source(node: Node, gated: dict[Node, Site]) -> Node | None:
    """The gated node whose channels a depthwise conv reads one by one, and that nothing else reads."""
    conv = node if op_of(node) in CONVS else input_of(node)
    if (
        op_of(conv) not in CONVS
        or not size_of(conv)[1] == argument(conv, 6, "groups", 1) == size_of(input_of(conv))[1]
    ):
        return None
    value = input_of(conv)
    while only_user(value) is not None:
        if value in gated:
            return value
        one_input = len(value.all_input_nodes) == 1
        if not (one_input and op_of(value) in POINTWISE | IDENTITY):
            return None
        value = input_of(value)
    return None
