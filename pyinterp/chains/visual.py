"""``measure_flow``: what a chain computes, unit by unit, for the drawn graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from pyinterp.chains.flow import ChainFlow, FlowColumn, FlowEdge, FlowUnit, Response
from pyinterp.errors import explain
from pyinterp.models.gating import GatedModel, gate_model
from pyinterp.models.graph import trace
from pyinterp.models.sites import Site, find_sites

if TYPE_CHECKING:
    from pyinterp.chains.chain import Chain
    from pyinterp.models.images import ImageSet

MAP_SIDE = 28
LEAST_CROP, CELLS = 36, 6
EVEN = 0.02


def measure_flow(
    model: nn.Module,
    chain: Chain,
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
        model: The network the chain was taken from, in eval mode.
        chain: The chain.
        images: The images to follow it on; of more than ``max_images`` as many are taken, evenly spread.
        units: Units per column, those with the most influence.
        least_share: Edges with a smaller share of their target's input are left out.
        examples: Images per unit.
        max_images: Images measured at most.

    Returns:
        The graph, ready to be drawn.

    Source: gradient times activation (Shrikumar et al., 2016), taken piece by piece.
    """
    if units < 1 or examples < 1 or max_images < 1:
        got = f"units={units}, examples={examples}, max_images={max_images}"
        raise ValueError(explain("measure_flow", "at least one of each", got, "Ask for one or more."))
    count = len(images.tensor)
    chosen = torch.linspace(0, count - 1, min(count, max_images)).round().long().unique()
    parameter = next(model.parameters())
    batch = images.tensor[chosen.to(images.tensor.device)].to(parameter.device, parameter.dtype)
    traced = trace(model, batch)
    sites = [site for site in find_sites(traced) if site.name in chain.kept or site.name in chain.layer_gates]
    gated = gate_model(traced, sites)
    gates = _gate_nodes(gated)
    scores = [chain.gate_values(site.name).to(parameter.device) for site in sites]
    whole, pieces = _run(gated, gates, batch, scores, cut=False), _run(gated, gates, batch, scores, cut=True)
    top = whole.logits.argmax(1)
    gradients = _gradients(whole, _margin(whole.logits, top))
    pixels = images.pixels[chosen]
    columns = []
    for site in gates.values():
        value, gradient = whole.handed[site.name].detach(), gradients[site.name]
        columns.append(_column(site, chain, value, gradient, pixels, chosen, units, examples))
    columns.append(_classes(top, whole.logits.shape[1], units))
    edges = _edges(columns, list(gates.values()), pieces, gradients, top, least_share)
    return ChainFlow(tuple(columns), tuple(edges), least_share, len(chosen))


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

    def __init__(self, gated: GatedModel, gates: dict[Node, Site], cut: bool) -> None:
        super().__init__(gated.module)
        self.gates, self.cut = gates, cut
        self.made: dict[str, Tensor] = {}
        self.handed: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.gates:
            name = self.gates[n].name
            self.made[name] = value
            if self.cut:
                value = value.detach().requires_grad_()
            self.handed[name] = value
        return value


def _run(
    gated: GatedModel, gates: dict[Node, Site], batch: Tensor, scores: Sequence[Tensor], *, cut: bool
) -> _Run:
    follow = _Follow(gated, gates, cut)
    logits = follow.run(batch.clone().requires_grad_(), None, *scores)
    return _Run(logits, follow.made, follow.handed)


def _gate_nodes(gated: GatedModel) -> dict[Node, Site]:
    """The gate of every site of units, in the order in which they run; with the axis that the gated value has there."""
    placeholders = [node for node in gated.module.graph.nodes if node.op == "placeholder"][2:]
    found = {}
    for site, node in zip(gated.sites, placeholders, strict=True):
        if site.kind != "layer":
            while node.target is not torch.ops.pyinterp.gate.default:
                (node,) = node.users
            found[node] = replace(site, dim=node.args[4])
    return found


def _margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Sum over images of the logit of ``classes`` less the mean logit."""
    return (logits.gather(1, classes[:, None])[:, 0] - logits.mean(1)).sum()


def _gradients(run: _Run, target: Tensor) -> dict[str, Tensor]:
    values = list(run.handed.values())
    found = torch.autograd.grad(target, values, allow_unused=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(run.handed.items(), found, strict=True)
    }


def _per_unit(value: Tensor, site: Site) -> Tensor:
    """Sum over all positions: a value of the site's shape -> (N, units)."""
    moved = value.movedim(site.dim, -1).reshape(value.shape[0], -1, site.units, site.inner)
    return moved.sum((1, 3))


def _column(
    site: Site,
    chain: Chain,
    value: Tensor,
    gradient: Tensor,
    pixels: Tensor,
    chosen: Tensor,
    most: int,
    examples: int,
) -> FlowColumn:
    kept = chain.kept[site.name].cpu()
    influence = _per_unit(value * gradient, site).abs().mean(0).cpu() * kept
    shares = influence / influence.sum().clamp_min(torch.finfo(influence.dtype).tiny)
    order = [int(i) for i in shares.argsort(descending=True, stable=True) if kept[i]][:most]
    maps = _maps(value, site, len(chosen))
    units = []
    for index in order:
        responses, picture = _look(maps[:, index].cpu(), pixels, chosen, examples)
        score = float(chain.scores[site.name][index]) if chain.mode == "scaled" else 1.0
        units.append(FlowUnit(index, score, float(shares[index]), picture, responses))
    return FlowColumn(site.name, site.kind, site.units, int(kept.sum()), not bool(kept.any()), tuple(units))


def _maps(value: Tensor, site: Site, images: int) -> Tensor:
    """Response of every unit at every place, not negative: (N, units, h, w)."""
    moved = value.movedim(site.dim, -1)
    moved = moved.reshape(*moved.shape[:-1], site.units, site.inner)
    response = moved.norm(dim=-1) if site.inner > 1 else moved[..., 0]
    # A unit responds by being positive; one that never is, by its size.
    never = (response <= 0).flatten(0, -2).all(0)
    response = torch.where(never, response.abs(), response.clamp_min(0))
    if len(response) == images and response.dim() == 4:
        return response.movedim(-1, 1)
    if len(response) == images and response.dim() == 3:
        tokens = response.shape[1]
        # Class and register tokens stand before the grid of patches.
        side = math.isqrt(tokens)
        return response[:, tokens - side * side :].reshape(images, side, side, -1).movedim(-1, 1)
    return response.reshape(images, -1, site.units).mean(1)[:, :, None, None]


def _look(maps: Tensor, pixels: Tensor, chosen: Tensor, examples: int) -> tuple[tuple[Response, ...], Tensor]:
    """A unit's strongest images, and the piece of the strongest one around its peak."""
    peak = maps.amax((1, 2))
    order = peak.argsort(descending=True, stable=True)[:examples]
    height, width = min(MAP_SIDE, maps.shape[1]), min(MAP_SIDE, maps.shape[2])
    small = nn.functional.adaptive_max_pool2d(maps[order][:, None], (height, width))[:, 0]
    low, high = maps.min(), peak.max()
    # A unit that responds alike everywhere is lit everywhere.
    low = low if high - low > EVEN * high else torch.zeros_like(low)
    levels = (
        ((small - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny) * 255).round().to(torch.uint8)
    )
    responses = tuple(Response(int(chosen[i]), level) for i, level in zip(order, levels, strict=True))
    best = int(order[0])
    return responses, _crop(maps[best], pixels[best])


def _crop(response: Tensor, picture: Tensor) -> Tensor:
    rows, columns = response.shape
    height, width = picture.shape[1:]
    row, column = divmod(int(response.argmax()), columns)
    side = int(min(max(LEAST_CROP, CELLS * height / rows), height, width))
    top = min(max(0, int((row + 0.5) * height / rows - side / 2)), height - side)
    left = min(max(0, int((column + 0.5) * width / columns - side / 2)), width - side)
    return picture[:, top : top + side, left : left + side].clone()


def _classes(top: Tensor, total: int, most: int) -> FlowColumn:
    found, counts = top.cpu().unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:most]
    units = tuple(FlowUnit(int(found[i]), 1.0, float(counts[i]) / len(top), None, ()) for i in order)
    return FlowColumn("", "class", total, len(found), False, units)


def _edges(
    columns: Sequence[FlowColumn],
    sites: Sequence[Site],
    pieces: _Run,
    gradients: dict[str, Tensor],
    top: Tensor,
    least_share: float,
) -> list[FlowEdge]:
    """Contributions along the paths between two units that meet no third one."""
    of = {site.name: site for site in sites}
    place = {(c.site, unit.index): (i, u) for i, c in enumerate(columns) for u, unit in enumerate(c.units)}
    edges = []
    for c, column in enumerate(columns):
        for u, unit in enumerate(column.units):
            if column.kind == "class":
                target, seed = _margin(pieces.logits[top == unit.index], top[top == unit.index]), None
            else:
                site, target = of[column.site], pieces.made[column.site]
                seed = gradients[column.site].movedim(site.dim, -1).unflatten(-1, (site.units, site.inner))
                alone = torch.zeros_like(seed)
                alone[..., unit.index, :] = seed[..., unit.index, :]
                seed = alone.flatten(-2).movedim(-1, site.dim)
            for name, index, share in _inputs(pieces, of, target, seed):
                if abs(share) >= least_share and (name, index) in place:
                    edges.append(FlowEdge(place[name, index], (c, u), share))
    return edges


def _inputs(
    pieces: _Run, of: dict[str, Site], target: Tensor, seed: Tensor | None
) -> list[tuple[str, int, float]]:
    """(site, unit, signed share) of everything that reaches ``target`` directly."""
    if not target.requires_grad:
        return []
    leaves = list(pieces.handed.items())
    found = torch.autograd.grad(
        target, [value for _, value in leaves], seed, retain_graph=True, allow_unused=True
    )
    parts = {
        name: _per_unit(gradient * value.detach(), of[name])
        for (name, value), gradient in zip(leaves, found, strict=True)
        if gradient is not None
    }
    whole = sum(float(part.abs().mean(0).sum()) for part in parts.values())
    if not whole:
        return []
    return [
        (name, index, math.copysign(amount / whole, float(part[:, index].sum())))
        for name, part in parts.items()
        for index, amount in enumerate(part.abs().mean(0).tolist())
        if amount
    ]
