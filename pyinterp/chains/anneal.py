"""The recipe for a target: gates that start soft and noisy and end open or closed, under a steered size penalty."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.chains.adam import Adam
from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Objective
from pyinterp.chains.progress import Recorder

CLOSED = -20.0
"""Logit of a unit that was closed for good."""


@dataclass(frozen=True)
class Schedule:
    """How the gates go from soft to hard.

    A unit's gate is G = sigmoid(a / T + c * e), e logistic noise (a binary concrete gate, Maddison et al. 2017):
    a unit that depends on a value between open and closed is found out before it is rounded.

    Attributes:
        steps: Optimisation steps.
        lr, betas: Of Adam on the logits a.
        scale_lr: Of Adam on the logarithms of the scores (scaled mode).
        start: First value of a.
        hot, cold: First and last temperature T; geometric in between.
        noise: Largest c; it grows from 0 between the shares ``noise_from`` and ``noise_to`` of the run.
        weight, gain: First weight of the size penalty, and how fast its logarithm follows the bound.
        strict_from: From this share of the run on, the top class counts, too (`Objective.shortfall`); earlier it
            keeps units open that the divergence alone would find dispensable.
        limit: a stays within plus and minus this times T, so that a gate can turn round.
        closed: A gate below this (without noise) is closed for good, except for the best ones, so that up to ``pool``
            times as many units as are open stay to choose from.
        look: Steps between two looks at what is closed for good.
    """

    steps: int = 500
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    scale_lr: float = 0.02
    start: float = 2.0
    hot: float = 1.0
    cold: float = 0.1
    noise: float = 0.5
    noise_from: float = 0.3
    noise_to: float = 0.8
    weight: float = 0.003
    gain: float = 0.1
    strict_from: float = 0.4
    limit: float = 8.0
    closed: float = 0.01
    pool: float = 2.0
    look: int = 20


@dataclass(frozen=True)
class Target:
    """What steers the size penalty: ``kl``, the bound on the mean divergence, or ``keep``, the share of units."""

    kl: float | None = None
    keep: float | None = None


@dataclass
class Annealed:
    """Where the gates of G trials ended.

    Attributes:
        logits: (G, units_total) a / T; positive is open.
        scores: (G, units_total) what an open unit is multiplied by (ones in exact mode).
    """

    logits: Tensor
    scores: Tensor


class Anneal:
    """One run over G trials at once; each trial sees its own images only, and steers its own weight.

    minimise  mean_x [D(x) + shortfall(x)] + weight * sum_i G_i    over the logits a (and the scores, if ``scaled``)

    Args:
        engine: The gated network; it gets smaller on the way. Layers stay open: a layer goes with its last unit.
        images: (N, ...) of all trials.
        objective: On the same images.
        group: (N,) int64, the trial of each image, 0..G-1.
        target: What to aim at.
        schedule: The recipe's numbers.
        scaled: Learn a positive score per open unit, too.
        seed: Of the gates' noise; all trials see the same noise, so that a trial does not depend on its neighbours.
    """

    def __init__(
        self,
        engine: Engine,
        images: Tensor,
        objective: Objective,
        group: Tensor,
        target: Target,
        schedule: Schedule,
        scaled: bool,
        seed: int,
    ) -> None:
        self.engine, self.images, self.objective, self.group = engine, images, objective, group
        self.target, self.schedule, self.scaled = target, schedule, scaled
        trials = int(group.max()) + 1
        self.counts = torch.bincount(group, minlength=trials)
        self.rows = group if trials > 1 else None
        wide = torch.promote_types(images.dtype, torch.float32)
        self.a = torch.full((trials, len(engine)), schedule.start, device=images.device, dtype=wide)
        self.log_scores = torch.zeros_like(self.a)
        self.available = torch.ones_like(self.a, dtype=torch.bool)
        self.walk = Adam(self.a, schedule.lr, schedule.betas)
        self.stretch = Adam(self.a, schedule.scale_lr, schedule.betas)
        self.weight = torch.full_like(self.a[:, :1], schedule.weight)
        self.done = 0.0
        self.generator = torch.Generator().manual_seed(seed)

    def run(self, recorder: Recorder) -> Annealed:
        """All steps; after Ctrl-C, where it stood (``recorder.interrupted``)."""
        try:
            for step in range(1, self.schedule.steps + 1):
                self.done = step / self.schedule.steps
                recorder(self._step())
                if step % self.schedule.look == 0:
                    self._close()
        except KeyboardInterrupt:
            recorder.interrupted = True
        logits = (self.a / self._temperature()).masked_fill(~self.available, CLOSED)
        return Annealed(logits, self.log_scores.exp())

    def _step(self) -> dict[str, Tensor]:
        schedule, units = self.schedule, self.engine.is_unit
        temperature = self._temperature()
        ramp = (self.done - schedule.noise_from) / (schedule.noise_to - schedule.noise_from)
        draw = torch.rand(len(self.engine), generator=self.generator, dtype=torch.float64).clamp_(
            1e-6, 1 - 1e-6
        )
        noise = schedule.noise * min(1.0, max(0.0, ramp)) * draw.logit().to(self.a)
        gates = (self.a / temperature + noise).sigmoid_() * self.available
        gates[:, ~units] = 1.0
        stretch = self.log_scores.exp()
        scores = (gates * stretch).requires_grad_()
        logits = self.engine.logits(scores if self.rows is not None else scores[0], self.images, self.rows)
        divergence = self.objective.divergence(logits)
        cost = divergence
        if self.done >= schedule.strict_from:
            cost = cost + self.objective.shortfall(logits)
        (gradient,) = torch.autograd.grad((cost / self.counts[self.group]).sum(), scores)
        with torch.no_grad():
            off, share = self._per_trial(divergence), gates[:, units].mean(1, keepdim=True)
            miss = self._miss(off, share)
            open_ways = self.available & units
            slope = (gradient * stretch + self.weight) * gates * (1 - gates) / temperature
            self.a += self.walk.step(slope) * open_ways
            self.a.clamp_(-schedule.limit * temperature, schedule.limit * temperature)
            if self.scaled:
                self.log_scores += self.stretch.step(gradient * scores) * open_ways
            self.weight *= (schedule.gain * miss.clamp(-1, 1)).exp()
            self.weight.clamp_(min=1e-3 * schedule.weight)
            agreement = self._per_trial(self.objective.agrees(logits).to(off))
            loss = self._per_trial(cost) + self.weight * gates[:, units].sum(1, keepdim=True)
        return {"kl": off, "agreement": agreement, "kept": share, "loss": loss}

    def _miss(self, off: Tensor, share: Tensor) -> Tensor:
        """(G, 1) how far below its aim each trial is, relatively: the penalty's weight follows it."""
        if self.target.kl is not None:
            return (self.target.kl - off) / self.target.kl
        wanted = (self.target.keep or 1.0) ** min(1.0, self.done / self.schedule.noise_to)
        return (share - wanted) / wanted

    def _close(self) -> None:
        """Close for good what stays closed, and leave it out physically once no trial has it."""
        schedule = self.schedule
        opening = (self.a / self._temperature()).sigmoid() * self.available
        room = opening.sum(1, keepdim=True) * (schedule.pool - (schedule.pool - 1) * self.done)
        place = (room.ceil().long() - 1).clamp(0, opening.shape[1] - 1)
        last = opening.sort(1, descending=True).values.gather(1, place)
        self.available &= (opening >= schedule.closed) | (opening >= last)
        self.engine.close_all_but(self.available.any(0), self.images[:1])

    def _temperature(self) -> float:
        return self.schedule.hot * (self.schedule.cold / self.schedule.hot) ** self.done

    def _per_trial(self, values: Tensor) -> Tensor:
        """(G, 1) means of (N,) values."""
        sums = torch.zeros(len(self.counts), device=values.device, dtype=values.dtype)
        return (sums.index_add_(0, self.group, values.detach()) / self.counts)[:, None]
