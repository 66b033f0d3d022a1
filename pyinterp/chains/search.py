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

TRIED_AT_ONCE = 16
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

    def slopes(self, kept: Tensor) -> tuple[Value, Tensor]:
        """The value, and d cost / d gate of every unit that is physically there."""
        gates = kept.to(self.scores.dtype).requires_grad_()
        logits = self.engine.logits(gates * self.scores, self.images)
        cost = (self.objective.divergence(logits) + self.objective.shortfall(logits)).mean()
        (gradient,) = torch.autograd.grad(cost, gates)
        return self._judge(logits.detach()), gradient

    def flip_costs(self, kept: Tensor) -> tuple[Value, Tensor]:
        """The value, and an estimate of the change of cost when one unit is flipped, (units_total,).

        Second order in the unit's gate, like Optimal Brain Damage (LeCun et al., 1990): +-g + h / 2, with g the slope
        and h the Gauss-Newton curvature E_x E_{c ~ q(x)} [(d log q_c(x) / d gate)^2], by `DRAWS` draws of c per image.
        A slope alone misleads: opening a unit is a large step.
        """
        count = len(self.images)
        gates = kept.to(self.scores.dtype).expand(count, -1).clone().requires_grad_()
        logits = self.engine.logits(gates * self.scores, self.images, torch.arange(count, device=kept.device))
        cost = (self.objective.divergence(logits) + self.objective.shortfall(logits)).sum()
        (slope,) = torch.autograd.grad(cost, gates, retain_graph=True)
        curvature = torch.zeros_like(slope)
        log_q = logits.log_softmax(1)
        for draw in range(DRAWS):
            classes = log_q.detach().exp().multinomial(1, generator=self.generator)
            chosen = log_q.gather(1, classes).sum()
            (each,) = torch.autograd.grad(chosen, gates, retain_graph=draw + 1 < DRAWS)
            curvature += each.square() / DRAWS
        direction = 1 - 2 * kept.to(slope)
        return self._judge(logits.detach()), direction * slope.mean(0) + curvature.mean(0) / 2

    def prune(self, kept: Tensor, bound: float, moves: int) -> Tensor:
        """Close units, the least missed first, as long as the bound is met."""
        engine = self.engine
        kept = engine.live(kept)
        engine.reopen()
        engine.close_all_but(kept, self.images[:1])
        batch, spared = 16, torch.zeros_like(kept)
        for _ in range(moves):
            _, estimate = self.flip_costs(kept)
            missed = (estimate / engine.cost).masked_fill(~kept | spared | engine.leads, float("inf"))
            left = int(torch.isfinite(missed).sum())
            if not left:
                break
            batch = min(batch, left)
            while batch > 1:
                smaller = kept.index_fill(0, missed.topk(batch, largest=False).indices, False)
                after = self.value(smaller)
                if after.meets(bound):
                    break
                batch //= 2
            else:
                some, after = self._best_singles(kept, missed, bound, spared)
                if some is None:
                    continue
                smaller = some
            kept = engine.live(smaller)
            batch = min(64, batch * 2)
            self.tell(after, kept)
        return kept

    def _best_singles(
        self, kept: Tensor, missed: Tensor, bound: float, spared: Tensor
    ) -> tuple[Tensor | None, Value]:
        """Try the units that look least missed one by one; close as many of the dispensable as may go together.

        Units that the bound does not allow to close are spared from now on.
        """
        few = missed.topk(min(TRIED_AT_ONCE, int(torch.isfinite(missed).sum())), largest=False).indices
        values = [self.value(kept.index_fill(0, unit, False)) for unit in few]
        allowed = [i for i, value in enumerate(values) if value.meets(bound)]
        spared[few[[i for i in range(len(few)) if i not in allowed]]] = True
        if not allowed:
            return None, values[0]
        allowed.sort(key=lambda i: values[i].cost)
        while True:
            smaller = kept.index_fill(0, few[allowed], False)
            after = self.value(smaller)
            if after.meets(bound):
                return smaller, after
            if len(allowed) == 1:
                spared[few[allowed]] = True
                return None, after
            allowed = allowed[: len(allowed) // 2]

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
