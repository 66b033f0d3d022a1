"""Where to cut a network so that evaluating many masked images costs least: a shortest path over possible tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from pyinterp.games.colours import colour, meeting
from pyinterp.games.reach import Reach, batch_symbol, carries_images, find_reach, is_batch_size
from pyinterp.models.count import work
from pyinterp.models.dataflow import CONVS, IDENTITY, RESHAPES
from pyinterp.models.flow.plan import bound
from pyinterp.models.graph import TracedModel, is_tensor, op_of, size_of

aten = torch.ops.aten

MACS_PER_NUMBER = 32
"""Multiply-accumulates of a convolution in the time of reading or writing one number: about 25 on an H200 in float32
(30 T a second against 1.2 T numbers) and 30 on a core with AVX-512 (60 G against 2 G)."""

_AFFINE = CONVS | RESHAPES | IDENTITY | {aten.linear, aten.permute, aten.transpose, aten.t, aten.batch_norm}
_AFFINE_WITH_CONSTANT = {aten.add, aten.sub, aten.mul, aten.div}


@dataclass(frozen=True)
class Cut:
    """A place in the network whose values are tabled.

    Attributes:
        nodes: The values that everything later reads.
        reach: Of each, who can influence it where; None for a cut that is a sum of responses.
        colours: Colour of each player; None for a sum of responses: the value for a subset is the value for no player
            plus, for each player of the subset, what it adds alone.
        rows: Masked images that fill the table: 2^colours, or players + 1.
        numbers: Size of the values for one image.
        end: How many of the graph's nodes are computed before the cut.
    """

    nodes: tuple[Node, ...]
    reach: tuple[Reach, ...] | None
    colours: tuple[int, ...] | None
    rows: int
    numbers: int
    end: int


@dataclass(frozen=True)
class Plan:
    """The cuts in their order, and what they are expected to give.

    Attributes:
        cuts: One or more.
        gain: Estimated cost of all plain forwards over that of the plan.
    """

    cuts: tuple[Cut, ...]
    gain: float


def find_plan(traced: TracedModel, players: Tensor, evaluations: int, memory: int) -> Plan | None:
    """The cheapest plan for so many evaluations whose tables, two neighbours at a time, fit into the memory.

    Args:
        traced: The network.
        players: int64, the player of each position of an input, negative for none.
        evaluations: How many subsets will be asked for.
        memory: Bytes.

    Returns:
        None where no plan is cheaper than plain forwards.
    """
    nodes = list(traced.graph.nodes)
    done = _cost_before(traced, nodes)
    image = sum(math.prod(size_of(n)[1:]) for n in nodes if n.op == "placeholder")
    count = int(players.max()) + 1
    itemsize = next(n.meta["val"].element_size() for n in nodes if n.op == "placeholder")
    cuts = [c for c in possible_cuts(traced, players) if c.rows < evaluations]

    def fetch(cut: Cut | None) -> int:
        """Cost of one subset's values at a cut, or of one masked image."""
        if cut is None:
            return 2 * image * MACS_PER_NUMBER
        return cut.numbers * (count if cut.colours is None else 2 * MACS_PER_NUMBER)

    def size(cut: Cut | None) -> int:
        return cut.rows * cut.numbers * itemsize if cut else 0

    plain = evaluations * (done[-1] + fetch(None))
    paths: list[tuple[float, tuple[Cut, ...]]] = [(0, ())]
    best: tuple[float, tuple[Cut, ...]] = (plain, ())
    for cut in cuts:
        found = None
        for cost, before in paths:
            last = before[-1] if before else None
            if size(last) + size(cut) > memory or (last and (cut.colours is None or last.end >= cut.end)):
                continue
            step = cost + cut.rows * (fetch(last) + done[cut.end] - done[last.end if last else 0])
            if found is None or step < found[0]:
                found = (step, (*before, cut))
        if found is None:
            continue
        paths.append(found)
        total = found[0] + evaluations * (fetch(cut) + done[-1] - done[cut.end])
        if total < best[0]:
            best = (total, found[1])
    return Plan(best[1], plain / best[0]) if best[1] else None


def _cost_before(traced: TracedModel, nodes: list[Node]) -> list[float]:
    """Cost of one image up to each node, without it; the last entry is the whole network's."""
    live, batch = carries_images(traced), batch_symbol(traced)

    def shape(node: Node) -> list[int]:
        """Shape of a value for one image, axes of windows and heads that are counted with the images included."""
        sizes = size_of(node)
        return [int(s.node.expr.subs(batch, 1)) if isinstance(s, torch.SymInt) else s for s in sizes]

    done = [0.0]
    for node in nodes:
        cost = 0
        if node.op == "call_function" and node in live and is_tensor(node) and not _is_view(node):
            values = [n for n in (node, *node.all_input_nodes) if n in live and is_tensor(n)]
            moved = sum(math.prod(shape(value)) for value in values)
            cost = work(node, shape) + moved * MACS_PER_NUMBER
        done.append(done[-1] + cost)
    return done


def _is_view(node: Node) -> bool:
    returns = node.target._schema.returns if isinstance(node.target, torch._ops.OpOverload) else ()
    return any(value.alias_info is not None for value in returns)


def possible_cuts(traced: TracedModel, players: Tensor) -> Iterator[Cut]:
    """Every place where positions depend on fewer than all players, or all is affine in the image, in order."""
    found = find_reach(traced, players)
    live = carries_images(traced)
    affine = _affine(traced, live)
    count = int(players.max()) + 1
    meetings = {node: meeting(reach.map) for node, reach in found.items()}
    colours: dict[tuple[bool, ...], tuple[int, ...]] = {}
    for end, nodes in _frontiers(traced, live):
        if nodes[0].op == "placeholder" or not all(is_tensor(node) for node in nodes):
            continue
        numbers = sum(math.prod(size_of(node)[1:]) for node in nodes)
        if len(nodes) == 1 and nodes[0] in affine:
            yield Cut(nodes, None, None, count + 1, numbers, end)
        if all(node in found for node in nodes):
            met = torch.stack([meetings[node] for node in nodes]).any(0)
            key = tuple(met.flatten().tolist())
            if key not in colours:
                colours[key] = colour(met)
            given = colours[key]
            yield Cut(nodes, tuple(found[n] for n in nodes), given, 2 ** (max(given) + 1), numbers, end)


def _frontiers(traced: TracedModel, live: set[Node]) -> Iterator[tuple[int, tuple[Node, ...]]]:
    """After each node: how many nodes are done, and which of their values the others read."""
    nodes = list(traced.graph.nodes)
    place, batch = {node: i for i, node in enumerate(nodes)}, batch_symbol(traced)
    last = {n: max((place[u] for u in n.users if not is_batch_size(u, batch)), default=-1) for n in live}
    open: list[Node] = []
    for i, node in enumerate(nodes[:-2]):
        open = [n for n in [*open, node] if n in live and last[n] > i]
        if node in live and open:
            yield i + 1, tuple(open)


def _affine(traced: TracedModel, live: set[Node]) -> set[Node]:
    """The values that are an affine function of the image."""
    found: set[Node] = set()
    for node in traced.graph.nodes:
        sources = [n for n in node.all_input_nodes if n in live]
        if node.op == "placeholder":
            if node.meta["val"].dtype.is_floating_point:
                found.add(node)
        elif len(sources) == 1 and sources[0] in found and node.args[0] is sources[0]:
            operation = op_of(node)
            if operation is aten.batch_norm and bound(node)["training"]:
                continue
            if operation in _AFFINE or operation in _AFFINE_WITH_CONSTANT:
                found.add(node)
    return found
