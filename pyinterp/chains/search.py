"""The last search over open and closed units: open what it takes to meet the bound, close what it does not take.

Every move is judged by running the network with it, so what this returns meets the bound whenever it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Objective

FIRST_BATCH, LARGEST_BATCH, SINGLES, PATIENCE, SAFE_LEAD = 16, 64, 16, 48, 0.05
DRAWS = 2
Report = Callable[[dict[str, Tensor]], None]


@dataclass(frozen=True)
class Value:
    """A sub-network's mean divergence, mean divergence + shortfall, and share of images with the same top class."""

    divergence: float
    cost: float
    agreement: float

    def meets(self, bound: float) -> bool:
        return self.divergence <= bound and self.agreement == 1.0


class Search:
    """Moves over the open units of one trial.

    Args:
        engine: The gated network.
        images: (N, ...) of the trial.
        objective: On the same images.
        scores: (units_total,) what an open unit is multiplied by.
        report: Called after every accepted move with its measures.

    Attributes:
        kept: (units_total,) bool, the smallest sub-network that pruning has accepted; None before.
    """

    def __init__(
        self,
        engine: Engine,
        images: Tensor,
        objective: Objective,
        scores: Tensor,
        report: Report,
        seed: int = 0,
    ) -> None:
        self.engine, self.images, self.objective = engine, images, objective
        self.scores, self.report = scores, report
        self.kept: Tensor | None = None
        self.generator = torch.Generator(images.device).manual_seed(seed)

    def value(self, kept: Tensor) -> Value:
        """Measure the sub-network of ``kept`` (units_total,) bool."""
        with torch.no_grad():
            return self._judge(self.engine.logits(kept * self.scores, self.images))

    def value_whole(self, kept: Tensor) -> Value:
        """`value` for any set of units, also those that are not physically there now."""
        self.engine.reopen()
        self.engine.close_all_but(self.engine.live(kept), self.images[:1])
        return self.value(kept)

    def grow(self, kept: Tensor, order: Tensor, bound: float) -> Tensor:
        """Open more and more units, the first in ``order`` first, until the bound is met: all of them meet it.

        Bisection over how many of the closed units are opened; their scores become 1.
        """
        engine = self.engine
        engine.reopen()
        closed = order.masked_fill(kept, float("-inf")).argsort(descending=True)[: int((~kept).sum())]
        scores = self.scores
        few, many = 0, len(closed)
        while many - few > max(1, many // 20):
            middle = max(few + 1, int((max(few, 1) * many) ** 0.5))
            trial = engine.tied(kept.index_fill(0, closed[:middle], True))
            self.scores = torch.where(kept, scores, torch.ones_like(scores))
            if self.value(trial).meets(bound):
                many = middle
            else:
                few = middle
        self.scores = torch.where(kept, scores, torch.ones_like(scores))
        if many == len(closed):
            self.scores = torch.ones_like(scores)
        return engine.tied(kept.index_fill(0, closed[:many], True))

    def slopes(self, kept: Tensor, strictness: Tensor) -> tuple[Value, Tensor, Tensor]:
        """The value, (N,) whether each image has its top class, and the slope of the cost by every unit's gate.

        Args:
            kept: (units_total,) bool.
            strictness: (N,) weight of each image's shortfall in the cost.
        """
        gates = kept.to(self.scores.dtype).requires_grad_()
        logits = self.engine.logits(gates * self.scores, self.images)
        cost = (self.objective.divergence(logits) + strictness * self.objective.shortfall(logits)).mean()
        (gradient,) = torch.autograd.grad(cost, gates)
        logits = logits.detach()
        return self._judge(logits), self.objective.agrees(logits), gradient

    def closing_costs(self, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What closing an open unit is expected to change.

        The cost to second order in the unit's gate, like Optimal Brain Damage (LeCun et al., 1990): -g + h / 2, with g
        the slope and h the Gauss-Newton curvature E_x E_{c ~ q(x)} [(d log q_c(x) / d gate)^2], by `DRAWS` draws of c
        per image. (For opening there is no such estimate: a gate at 0 before a ReLU has no slope.)

        Returns:
            (units_total,) change of the mean cost; (N,) lead of the full network's top class on each image now;
            (N, units_total) its change, to first order.
        """
        count = len(self.images)
        gates = kept.to(self.scores.dtype).expand(count, -1).clone().requires_grad_()
        logits = self.engine.logits(gates * self.scores, self.images, torch.arange(count, device=kept.device))
        leads = self.objective.leads(logits)
        cost = (self.objective.divergence(logits) + self.objective.shortfall(logits)).sum()
        (pull,) = torch.autograd.grad(leads.sum(), gates, retain_graph=True)
        (slope,) = torch.autograd.grad(cost, gates, retain_graph=True)
        curvature = torch.zeros_like(slope)
        log_q = logits.log_softmax(1)
        for draw in range(DRAWS):
            classes = log_q.detach().exp().multinomial(1, generator=self.generator)
            chosen = log_q.gather(1, classes).sum()
            (each,) = torch.autograd.grad(chosen, gates, retain_graph=draw + 1 < DRAWS)
            curvature += each.square() / DRAWS
        return curvature.mean(0) / 2 - slope.mean(0), leads.detach(), -pull

    def prune(self, kept: Tensor, bound: float, trials: int) -> Tensor:
        """Close units, the least missed first, as long as the bound is met.

        Many at once at first; where that fails, one by one. Units that the bound does not allow to close are spared
        from then on. Ends when `PATIENCE` trials in a row closed nothing.

        Args:
            kept: (units_total,) bool, a sub-network that meets the bound.
            bound: On the mean divergence.
            trials: How many sub-networks may be measured at most.
        """
        engine = self.engine
        kept = self.kept = engine.live(kept)
        engine.reopen()
        engine.close_all_but(kept, self.images[:1])
        batch, spared, idle = FIRST_BATCH, torch.zeros_like(kept), 0
        while trials > 0 and idle < PATIENCE:
            estimate, leads, pull = self.closing_costs(kept)
            missed = (estimate / engine.cost).masked_fill(~kept | spared | engine.leads, float("inf"))
            order = missed.argsort()[: int(torch.isfinite(missed).sum())]
            if not len(order):
                break
            order = _fair(order, leads, pull)[:LARGEST_BATCH]
            batch, before = min(batch, len(order)), kept
            while batch > 1 and kept is before and trials > 0:
                kept = self._closed(kept, order[:batch], bound)
                trials, idle = trials - 1, idle + 1 if kept is before else 0
                batch = batch // 2 if kept is before else min(2 * batch, LARGEST_BATCH)
            if batch == 1 and kept is before:
                for unit in order[: min(SINGLES, trials)]:
                    smaller = self._closed(kept, unit, bound)
                    spared[unit] = smaller is kept
                    kept, trials, idle = smaller, trials - 1, idle + 1 if smaller is kept else 0
        return kept

    def _closed(self, kept: Tensor, units: Tensor, bound: float) -> Tensor:
        """``kept`` without ``units`` if the bound is met without them, else ``kept`` itself."""
        smaller = kept.index_fill(0, units, False)
        after = self.value(smaller)
        if not after.meets(bound):
            return kept
        smaller = self.kept = self.engine.live(smaller)
        self.tell(after, smaller)
        return smaller

    def _judge(self, logits: Tensor) -> Value:
        divergence = self.objective.divergence(logits)
        cost = divergence + self.objective.shortfall(logits)
        agreement = self.objective.agrees(logits).float().mean()
        return Value(float(divergence.mean()), float(cost.mean()), float(agreement))

    def tell(self, value: Value, kept: Tensor) -> None:
        """Report a step."""
        share = kept.sum() / len(kept)
        numbers = {"kl": value.divergence, "agreement": value.agreement, "loss": value.cost}
        measures = {name: torch.tensor(number) for name, number in numbers.items()}
        self.report(measures | {"kept": share.float().cpu()})


def _fair(order: Tensor, leads: Tensor, pull: Tensor) -> Tensor:
    """Those of ``order``, in order, that together cost no image its lead: one below `SAFE_LEAD` must not fall.

    Args:
        order: (K,) units.
        leads: (N,) of the images.
        pull: (N, units_total) expected change of the leads by each unit.
    """
    taken, rest, leads = [], [], leads.cpu()
    for unit, change in zip(order.tolist(), pull[:, order].T.cpu(), strict=True):
        after = leads + change
        if bool((after >= leads.clamp(max=SAFE_LEAD)).all()):
            taken.append(unit)
            leads = after
        else:
            rest.append(unit)
        if len(taken) == LARGEST_BATCH:
            break
    return order.new_tensor(taken + rest)
