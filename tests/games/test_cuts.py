"""The plan is the cheapest chain of cuts that fits into the memory, and nothing is computed on both sides of a cut."""

from __future__ import annotations

import itertools

import pytest
import torch
from shared_nets import NETS, PLAYERS, SIZE, grid, net
from torch.fx import Node

from pyinterp.games import cuts as cuts_module
from pyinterp.games.cuts import MACS_PER_NUMBER, Cut, find_plan, possible_cuts
from pyinterp.games.stretch import cut_out
from pyinterp.models import TracedModel, trace
from pyinterp.models.count import count, work
from pyinterp.models.graph import op_of, size_of

GRID = grid(3, 4)


def traced(name: str) -> TracedModel:
    return trace(net(name), torch.zeros(1, 3, SIZE, SIZE, dtype=torch.float64))


def cost_of(network: TracedModel, chain: tuple[Cut, ...], evaluations: int) -> float:
    """Images per stretch times its work: fetching its input, then each of its nodes."""
    done = cuts_module._cost_before(network, list(network.graph.nodes))
    total, start, fetch = 0.0, 0, 2.0 * 3 * SIZE**2 * MACS_PER_NUMBER
    for cut in chain:
        total += cut.rows * (fetch + done[cut.end] - done[start])
        per_number = 12 if cut.colours is None else 2 * MACS_PER_NUMBER
        start, fetch = cut.end, cut.numbers * per_number
    return total + evaluations * (fetch + done[-1] - done[start])


@pytest.mark.parametrize("memory", [1 << 30, 1 << 20])
@pytest.mark.parametrize("name", ["strides", "pooling", "mlp"])
def test_no_chain_of_cuts_is_cheaper(name: str, memory: int) -> None:
    network = traced(name)
    cuts = [cut for cut in possible_cuts(network, GRID) if cut.rows < 4096]
    plan = find_plan(network, GRID, 4096, memory)
    least = cost_of(network, (), 4096)
    for length in (1, 2, 3):
        for chain in itertools.combinations(cuts, length):
            bytes_ = [cut.rows * cut.numbers * 8 for cut in chain]
            if all(a.end < b.end and b.colours for a, b in itertools.pairwise(chain)) and all(
                sum(pair) <= memory for pair in [bytes_[:1], *itertools.pairwise(bytes_)]
            ):
                least = min(least, cost_of(network, chain, 4096))
    found = plan.cuts if plan else ()
    assert cost_of(network, found, 4096) <= least * (1 + 1e-9)
    if plan:
        assert plan.gain == pytest.approx(cost_of(network, (), 4096) / cost_of(network, found, 4096))


def test_no_memory_no_plan() -> None:
    assert find_plan(traced("strides"), GRID, 4096, 0) is None


@pytest.mark.parametrize("name", NETS)
def test_work_adds_up_to_the_network_s(name: str) -> None:
    network = traced(name)
    shapes = lambda node: [1 if isinstance(s, torch.SymInt) else s for s in size_of(node)]
    if name != "windows":  # whose first axis is not the images alone
        macs = sum(work(node, shapes) for node in network.graph.nodes if node.op == "call_function")
        assert macs == count(network.module, network.input_shape)[1]


@pytest.mark.parametrize("name", NETS)
def test_nothing_is_computed_on_both_sides(name: str) -> None:
    network = traced(name)
    inputs = tuple(node for node in network.graph.nodes if node.op == "placeholder")

    def products(nodes: list[Node]) -> int:
        return sum(op_of(node) in (torch.ops.aten.conv2d, torch.ops.aten.linear) for node in nodes)

    whole = products(list(network.graph.nodes))
    for cut in possible_cuts(network, PLAYERS["stains"]):
        first = cut_out(network, inputs, cut.nodes)
        rest = cut_out(network, cut.nodes, [network.graph.output_node().args[0]])  # type: ignore[list-item]
        assert products(list(first.graph.nodes)) + products(list(rest.graph.nodes)) == whole
