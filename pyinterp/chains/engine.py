"""The gated network at work: it answers for any scores, and gets physically smaller as units close for good."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from pyinterp.models.dataflow import Dataflow
from pyinterp.models.gating import GatedModel, gate_model, store_channels_last
from pyinterp.models.graph import TracedModel
from pyinterp.models.pairs import depthwise_readers
from pyinterp.models.prefix import SplitNetwork
from pyinterp.models.shrink import live_units, shrink
from pyinterp.models.sites import Site

SHRINK_BELOW = {"cpu": 0.9, "cuda": 0.5}
"""A network gets smaller once at most this share of its units is left: a GPU gains less by it, and records anew."""


class Engine:
    """All units of all sites as one row of scores.

    Args:
        traced: The network.
        sites: Its sites; their units follow each other in a row of scores (units_total,).
        autocast: Run the network in this dtype (scores and the objective stay float32); None: as it is.

    Attributes:
        sizes: Units per site.
        is_unit: (units_total,) bool; False for layer gates.
        stored: (units_total,) bool, the units that are physically there.
        network: What runs now: another object whenever units went or came back.
        leads: (units_total,) bool, the units that one depthwise filter alone reads: of no use without it.
        cost: (units_total,) how many units open with this one: 0 for those that lead, 1 + those that lead here.
    """

    def __init__(
        self, traced: TracedModel, sites: Sequence[Site], autocast: torch.dtype | None = None
    ) -> None:
        self.gated: GatedModel = gate_model(traced, sites, fused=True)
        self.sites = tuple(sites)
        self.sizes = [site.units for site in sites]
        self.autocast = autocast
        weight = next(iter(self.gated.module.buffers()))
        self.device = weight.device
        kinds = [torch.full((site.units,), site.kind != "layer") for site in sites]
        self.is_unit = torch.cat(kinds).to(self.device)
        readers = depthwise_readers(traced, sites).to(self.device)
        self.leads = readers >= 0
        self._last_reader = torch.where(self.leads, readers, torch.arange(len(readers), device=self.device))
        while self.leads[self._last_reader].any():
            self._last_reader = self._last_reader[self._last_reader]
        self.cost = torch.bincount(self._last_reader, minlength=len(readers)).float()
        cuts = {node.name for node in Dataflow(traced.graph).cuts()}
        places = torch.arange(len(readers), device=self.device).split(self.sizes)
        passed = [units for site, units in zip(sites, places, strict=True) if site.node in cuts]
        passed = [units[self.is_unit[units] & ~self.leads[units]] for units in passed]
        self._passed = [units for units in passed if len(units)]
        self._whole = self.network = SplitNetwork(self.gated.module)
        self._taken: list[Tensor] | None = None
        self.stored = torch.ones_like(self.is_unit)

    def __len__(self) -> int:
        return len(self.is_unit)

    def logits(self, scores: Tensor, images: Tensor, group: Tensor | None = None) -> Tensor:
        """Logits (N, classes) in float32 for scores (units_total,), or (G, units_total) with group (N,)."""
        rows = list(scores.split(self.sizes, dim=-1))
        if self._taken is not None:
            rows = [row[..., units] for row, units in zip(rows, self._taken, strict=True)]
        with torch.autocast(
            self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None
        ):
            logits = self.network(images, group, *rows)
        if scores.requires_grad and not logits.requires_grad:  # no gate is left: the slopes are 0
            logits = logits + 0 * scores.sum()
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def close_all_but(self, open_units: Tensor, probe: Tensor) -> None:
        """Leave out all units but ``open_units`` (units_total,) physically, when that makes a difference in size.

        The smaller network's logits on ``probe`` (one image) must equal the larger one's; else the larger one stays.
        """
        open_units = open_units & self.stored
        enough = SHRINK_BELOW.get(self.device.type, SHRINK_BELOW["cuda"])
        if int(open_units.sum()) > enough * int(self.stored.sum()):
            return
        scores = open_units.to(torch.promote_types(probe.dtype, torch.float32))
        with torch.no_grad():
            before = self.logits(scores, probe)
        old = self.network, self._taken
        small = shrink(self.gated, open_units.split(self.sizes))
        store_channels_last(small.module)
        self.network = SplitNetwork(small.module)
        self._taken = [units.to(self.device) for units in small.stored]
        with torch.no_grad():
            after = self.logits(scores, probe)
        rounding = 4 * torch.finfo(probe.dtype).eps
        allowed = (0.1 if self.autocast else max(1e-3, rounding)) * (1 + before.abs().max())
        if not (before - after).abs().max() <= allowed:
            self.network, self._taken = old
            warnings.warn(
                f"a smaller network differs by {(before - after).abs().max():.3g} in its logits and was not used; the "
                "result is right, but slower. Please report the model.",
                stacklevel=2,
            )
            return
        there = [torch.zeros(n, dtype=torch.bool, device=self.device) for n in self.sizes]
        for site, units in zip(there, small.stored, strict=True):
            site[units.to(self.device)] = True
        self.stored = torch.cat(there) & open_units

    def ways(self, order: Tensor) -> Tensor:
        """(..., units_total) bool: of each site that all paths to the logits pass, the first unit in ``order``.

        Where such a site is empty, the network answers the same for all images, and no slope leads back.
        """
        first = torch.zeros_like(order, dtype=torch.bool)
        for units in self._passed:
            first.scatter_(-1, units[order[..., units].argmax(-1, keepdim=True)], True)
        return first

    def first(self, order: Tensor, allowed: float) -> Tensor:
        """(..., units_total) bool: the first units in ``order`` that count as no more than ``allowed`` units.

        Before all others comes the first unit of each site that all paths pass.
        """
        worth = order.masked_fill(self.leads, -float("inf")).masked_fill(self.ways(order), float("inf"))
        ranked = worth.argsort(dim=-1, descending=True)
        fits = self.cost[ranked].cumsum(-1) <= allowed
        return self.tied(torch.zeros_like(fits).scatter(-1, ranked, fits))

    def tied(self, values: Tensor) -> Tensor:
        """``values`` (..., units_total) where each unit that leads has its reader's."""
        return values[..., self._last_reader]

    def reopen(self) -> None:
        """Bring all units back."""
        self.network, self._taken = self._whole, None
        self.stored = torch.ones_like(self.is_unit)

    def live(self, kept: Tensor) -> Tensor:
        """``kept`` (units_total,) bool without units that no kept unit reads or that nothing reaches; same function."""
        return torch.cat(live_units(self.gated, kept.split(self.sizes))).to(self.device)
