"""``measure_flow``: what a chain computes, unit by unit, for the drawn graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from pyinterp.chains.flow import ChainFlow, FlowColumn, FlowEdge, FlowUnit
from pyinterp.chains.responses import look, response_maps
from pyinterp.errors import explain
from pyinterp.models.gating import GatedModel
from pyinterp.models.gradients import with_gradients
from pyinterp.models.shrink import Shrunk, shrink
from pyinterp.models.sites import Site

if TYPE_CHECKING:
    from pyinterp.chains.chain import Chain
    from pyinterp.models.images import ImageSet


@with_gradients
def measure_flow(
    chain: Chain,
    model: nn.Module | GatedModel,
    images: ImageSet,
    *,
    units: int = 6,
    least_share: float = 0.05,
    examples: int = 4,
    max_images: int = 10,
) -> ChainFlow:
    """Follow what a chain computes: the influence of its units on the answers, and what passes between them.

    With z the logit of the chain's top class less the mean logit, and h[i] what unit i hands on, the influence of i is
    the mean over images of ``|sum over positions of dz/dh[i] * h[i]|``. An edge i -> j is the same sum, taken along the
    paths from i to j that meet no other unit: ``dz/dh[j] * dh[j]/dh[i] * h[i]``. One rule for every architecture.

    Args:
        chain: The chain.
        model: Its network, or ``chain.bind(model)``.
        images: The images to follow it on; of more than ``max_images`` as many are taken, evenly spread.
        units: Units per column, those with the most influence.
        least_share: Edges with a smaller share of their target's input are left out.
        examples: Images per unit.
        max_images: Images measured at most.

    Returns:
        The graph, ready to be drawn.

    Raises:
        ValueError: ``model`` is not the chain's, or a count is below one.

    Source: gradient times activation (Shrikumar et al., 2016), taken piece by piece.
    """
    if units < 1 or examples < 1 or max_images < 1:
        got = f"units={units}, examples={examples}, max_images={max_images}"
        raise ValueError(explain("measure_flow", "at least one of each", got, "Ask for one or more."))
    if not hasattr(images, "pixels"):
        fix = "Pass what pyinterp.models.load_images gives: it has the pixels, too."
        raise TypeError(explain("measure_flow", "an ImageSet", type(images).__name__, fix))
    count = len(images.tensor)
    chosen = torch.linspace(0, count - 1, min(count, max_images)).round().long().unique()
    gated = chain.bind(model)
    weight = next(gated.module.buffers())
    batch = images.tensor[chosen.to(images.tensor.device)].to(weight.device, weight.dtype)
    scores = chain.gates(batch)
    # What is not kept takes no time: the small network has the same gates, for the units that are left.
    small = shrink(gated, [score != 0 for score in scores])
    left = [score[stored.to(score.device)] for score, stored in zip(scores, small.stored, strict=True)]
    gates = _gates(small, chain.sites)
    whole, pieces = _run(small, gates, batch, left, cut=False), _run(small, gates, batch, left, cut=True)
    top = whole.logits.argmax(1)
    gradients = _gradients(whole, _margin(whole.logits, top))
    at = {gate.site.name: gate for gate in gates.values() if gate.site.name in whole.handed}
    columns = []
    for site in chain.sites:
        if site.kind != "layer":
            shown: list[FlowUnit] = []
            if site.name in at:
                value, gradient = whole.handed[site.name].detach(), gradients[site.name]
                scaled = chain.gate_values(site.name)
                shown = _shown(
                    at[site.name], value, gradient, scaled, images.pixels[chosen], units, examples, chosen
                )
            kept = int(chain.kept[site.name].sum())
            columns.append(FlowColumn(site.name, site.kind, site.units, kept, not kept, tuple(shown)))
    columns.append(_classes(top, whole.logits.shape[1], units))
    edges = [edge for edge in _edges(columns, at, pieces, gradients, top) if abs(edge.share) >= least_share]
    return ChainFlow(tuple(columns), tuple(edges), least_share, len(chosen))


@dataclass(frozen=True)
class _Gate:
    """The gate of a site in the small network.

    Attributes:
        site: The site.
        dim: Axis of the gated value along which the units lie.
        units: Which units of the site are there, in this order.
    """

    site: Site
    dim: int
    units: list[int]


@dataclass(frozen=True)
class _Run:
    """One pass of the chain.

    Attributes:
        logits: (N, classes).
        made: What each site's gate gave.
        handed: The same values as the rest of the network reads them; leaves of autograd where the run was cut.
    """

    logits: Tensor
    made: dict[str, Tensor]
    handed: dict[str, Tensor]


class _Follow(Interpreter):
    """Runs the gated graph and keeps what the gates of units give; ``cut`` ends autograd at each of them."""

    def __init__(self, module: GraphModule, gates: dict[Node, _Gate], cut: bool) -> None:
        super().__init__(module)
        self.gates, self.cut = gates, cut
        self.made: dict[str, Tensor] = {}
        self.handed: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.gates:
            name = self.gates[n].site.name
            self.made[name] = value
            if self.cut or not value.requires_grad:
                value = value.detach().requires_grad_()
            self.handed[name] = value
        return value


def _run(
    small: Shrunk, gates: dict[Node, _Gate], batch: Tensor, scores: Sequence[Tensor], *, cut: bool
) -> _Run:
    follow = _Follow(small.module, gates, cut)
    logits = follow.run(batch.clone().requires_grad_(), None, *scores)
    return _Run(logits, follow.made, follow.handed)


def _gates(small: Shrunk, sites: Sequence[Site]) -> dict[Node, _Gate]:
    """The gate of every site that has units left; the value and the axis are those of the gate's own call."""
    placeholders = [node for node in small.module.graph.nodes if node.op == "placeholder"][2:]
    found = {}
    for site, node, units in zip(sites, placeholders, small.stored, strict=True):
        if site.kind == "layer" or not len(units):
            continue
        while node.target is not torch.ops.pyinterp.gate.default:
            (node,) = node.users
        found[node] = _Gate(site, node.args[4], units.tolist())
    return found


def _margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Sum over images of the logit of ``classes`` less the mean logit."""
    return (logits.gather(1, classes[:, None])[:, 0] - logits.mean(1)).sum()


def _gradients(run: _Run, target: Tensor) -> dict[str, Tensor]:
    if not (target.requires_grad and run.handed):  # it answers the same to every image, or no unit is left
        return {name: torch.zeros_like(value) for name, value in run.handed.items()}
    found = torch.autograd.grad(target, list(run.handed.values()), materialize_grads=True)
    return dict(zip(run.handed, found, strict=True))


def _per_unit(value: Tensor, gate: _Gate) -> Tensor:
    """Sum over all positions: a value of the gate's shape -> (rows, units)."""
    moved = value.movedim(gate.dim, -1)
    return moved.reshape(moved.shape[0], -1, len(gate.units), moved.shape[-1] // len(gate.units)).sum((1, 3))


def _shown(
    gate: _Gate,
    value: Tensor,
    gradient: Tensor,
    scores: Tensor,
    pixels: Tensor,
    most: int,
    examples: int,
    chosen: Tensor,
) -> list[FlowUnit]:
    """The most influential units of one site."""
    influence = _per_unit(value * gradient, gate).abs().mean(0).cpu()
    shares = influence / influence.sum().clamp_min(torch.finfo(influence.dtype).tiny)
    maps = response_maps(value, gate.dim, len(gate.units), pixels).cpu()
    shown = []
    for place in shares.argsort(descending=True, stable=True)[:most].tolist():
        picture, responses = look(maps[:, place], pixels, chosen, examples)
        index = gate.units[place]
        shown.append(FlowUnit(index, float(scores[index]), float(shares[place]), picture, responses))
    return shown


def _classes(top: Tensor, total: int, most: int) -> FlowColumn:
    found, counts = top.cpu().unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:most]
    units = tuple(FlowUnit(int(found[i]), 1.0, float(counts[i]) / len(top), None, ()) for i in order)
    return FlowColumn("", "class", total, len(found), False, units)


def _edges(
    columns: Sequence[FlowColumn],
    at: dict[str, _Gate],
    pieces: _Run,
    gradients: dict[str, Tensor],
    top: Tensor,
) -> Iterator[FlowEdge]:
    """Contributions between shown units along the paths that meet no third one."""
    place = {(c.site, unit.index): (i, u) for i, c in enumerate(columns) for u, unit in enumerate(c.units)}
    for c, column in enumerate(columns):
        for u, unit in enumerate(column.units):
            if column.kind == "class":
                rows = top == unit.index
                target, seed = _margin(pieces.logits[rows], top[rows]), None
            else:
                target = pieces.made[column.site]
                seed = _alone(gradients[column.site], at[column.site], unit.index)
            for name, index, share in _inputs(pieces, at, target, seed):
                if (name, index) in place:
                    yield FlowEdge(place[name, index], (c, u), share)


def _alone(value: Tensor, gate: _Gate, unit: int) -> Tensor:
    """``value`` with zeros at every unit but one."""
    width = value.shape[gate.dim] // len(gate.units)
    start = gate.units.index(unit) * width
    alone = torch.zeros_like(value)
    alone.narrow(gate.dim, start, width).copy_(value.narrow(gate.dim, start, width))
    return alone


def _inputs(
    pieces: _Run, at: dict[str, _Gate], target: Tensor, seed: Tensor | None
) -> list[tuple[str, int, float]]:
    """(site, unit, signed share) of everything that reaches ``target`` directly."""
    if not (target.requires_grad and pieces.handed):
        return []
    leaves = list(pieces.handed.items())
    found = torch.autograd.grad(target, [v for _, v in leaves], seed, retain_graph=True, allow_unused=True)
    parts = {
        name: _per_unit(gradient * value.detach(), at[name])
        for (name, value), gradient in zip(leaves, found, strict=True)
        if gradient is not None
    }
    whole = sum(float(part.abs().mean(0).sum()) for part in parts.values())
    return [
        (name, at[name].units[place], math.copysign(amount / whole, float(part[:, place].sum())))
        for name, part in parts.items()
        for place, amount in enumerate(part.abs().mean(0).tolist())
        if amount
    ]
