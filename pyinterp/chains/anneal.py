"""The recipe for a target: gates that start soft and end open or closed, under a steered size penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.chains.adam import Adam
from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Objective
from pyinterp.chains.progress import Recorder
from pyinterp.chains.replay import Replay

CLOSED = -20.0
"""Logit of a unit that was closed for good."""
FASTEST, LEAST = 0.1, 1e-3
"""The logarithm of the size penalty's weight moves by at most this per step; its least value, in parts of the first."""
STRICTER, RELAXED = 1.05, 0.98
"""What an image's strictness is multiplied by, per step, while its top class is another, and while it is the same."""
GAIN = 0.005
"""Part of its size by which a sub-network has to shrink for a trial to go on."""
LEAST_WAIT = 15
"""Steps that a trial waits for that at least, however short the run is."""


@dataclass(frozen=True)
class Schedule:
    """How the gates go from soft to hard.

    A unit's gate is G = sigmoid(a / T + c * e), e logistic noise (a binary concrete gate, Maddison et al. 2017):
    a unit that depends on a value between open and closed is found out before it is rounded.

    Attributes:
        steps: Optimisation steps; half as many more follow while the bound was never met.
        patience: For a bound on the divergence, a trial that has met it settles once the best sub-network has shrunk by
            less than `GAIN` within this share of the run.
        lr, betas: Of Adam on the logits a.
        scale_lr: Of Adam on the logarithms of the scores (scaled mode).
        clip: A trial's gradient is cut to this times its usual norm, so that one wild step does not slow the next ones.
        start, spread: First value of a: start plus or minus spread, by the rank of a unit's slope at the full network.
            Steps of Adam are alike for all units; without a spread they would close all at once, and too many.
        hot, warm, cold: Temperature T at the start, at the share ``warm_at`` of the run, and at its end; geometric in
            between. What is found is found while it is hot; the rest of the run makes it hard.
        noise: Largest c; it grows from 0 between the shares ``noise_from`` and ``noise_to`` of the run. Every image has
            its own, so that one step sees many draws.
        weight, gain: First weight of the size penalty, and how fast its logarithm follows the bound.
        aim, aim_most: Part of the bound that the soft gates aim at: ``aim`` while the top class of an image is another,
            since a sub-network that only just meets the bound tends to give all images of a class one answer, and no
            single unit brings their differences back; up to ``aim_most`` while all top classes agree. The rest of the
            bound is for the rounding.
        window: Steps whose median measure does the steering, so that one wild step does not turn it.
        ahead: For ``target_keep``, the share that is steered is the one that so many steps at the present pace lead to,
            so that the weight does not close more than was asked for.
        judge_from: From this share of the run on, the rounded gates are judged at every step: they steer the weight,
            and the best ones are remembered.
        strictness: Weight of `Objective.shortfall`; from the share ``strict_from`` of the run on it grows for images
            whose top class is another, up to ``strictest``.
        limit: a stays within plus and minus this times T, so that a gate can turn round.
        way: The first unit of a site that all paths pass is held above this times T: an empty one cuts the network.
        closed: A unit that is multiplied by less than this (without noise) is closed for good, except for the best
            ones, so that up to ``pool`` times as many units as are open stay to choose from.
        look: Steps between two looks at what is closed for good.
    """

    steps: int = 560
    patience: float = 0.05
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    scale_lr: float = 0.02
    clip: float = 2.0
    start: float = 2.0
    spread: float = 1.5
    hot: float = 1.0
    warm: float = 0.25
    cold: float = 0.1
    warm_at: float = 0.7
    noise: float = 0.35
    noise_from: float = 0.1
    noise_to: float = 0.6
    weight: float = 0.003
    gain: float = 0.2
    aim: float = 0.6
    aim_most: float = 0.7
    window: int = 7
    ahead: int = 25
    judge_from: float = 0.78
    strictness: float = 0.3
    strict_from: float = 0.56
    strictest: float = 10.0
    limit: float = 8.0
    way: float = 2.0
    closed: float = 0.1
    pool: float = 2.0
    look: int = 5


@dataclass(frozen=True)
class Target:
    """What is asked for: ``kl``, a bound on the mean divergence, or ``keep``, on the share of units."""

    kl: float | None = None
    keep: float | None = None


@dataclass
class Annealed:
    """Where the gates of G trials ended.

    Attributes:
        logits: (G, units_total) a / T; positive is open.
        scores: (G, units_total) what an open unit is multiplied by (ones in exact mode).
        best: (G, units_total) bool, the best rounded gates seen that meet the target.
        best_scores: (G, units_total) the scores at that step.
        met: (G,) bool, whether there were any.
    """

    logits: Tensor
    scores: Tensor
    best: Tensor
    best_scores: Tensor
    met: Tensor

    def where(self, mine: Tensor, other: Annealed) -> Annealed:
        """The trials of ``mine`` (G,) bool as here, all others as in ``other``."""
        rows = mine[:, None]
        return Annealed(
            torch.where(rows, self.logits, other.logits),
            torch.where(rows, self.scores, other.scores),
            torch.where(rows, self.best, other.best),
            torch.where(rows, self.best_scores, other.best_scores),
            torch.where(mine, self.met, other.met),
        )


class Anneal:
    """One run over G trials at once; each trial sees its own images only, and steers its own weight.

    minimise  mean_x [D(x) + u_x * shortfall(x)] + weight * sum_i G_i   over the logits a (``scaled``: and the scores)

    A unit that a depthwise filter alone reads has no gate of its own: both are open, or both closed, and count as two.

    Args:
        engine: The gated network, units only; it gets smaller on the way.
        images: (N, ...) of all trials.
        objective: On the same images.
        group: (N,) int64, ascending, the trial of each image, 0..G-1.
        target: What to aim at.
        schedule: The recipe's numbers.
        scaled: Learn a positive score per open unit, too.
        seed: Of the gates' noise; it is the same for the i-th image of every trial, so that a trial does not depend on
            its neighbours.
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
        self.each = torch.arange(len(images), device=images.device)
        self.sizes = self.counts.tolist()
        self.place = torch.cat([self.each[:size] for size in self.sizes])
        wide = torch.promote_types(images.dtype, torch.float32)
        self.a = torch.full((trials, len(engine)), schedule.start, device=images.device, dtype=wide)
        self.a += schedule.spread * self._ranks()
        self.log_scores = torch.zeros_like(self.a)
        self.available = torch.ones_like(self.a, dtype=torch.bool)
        self.walk = Adam(self.a, schedule.lr, schedule.betas)
        self.stretch = Adam(self.a, schedule.scale_lr, schedule.betas)
        self.weight = torch.full_like(self.a[:, :1], schedule.weight)
        self.strictness = self.a.new_full((len(images),), schedule.strictness)
        self.aim = torch.full_like(self.weight, schedule.aim)
        self.usual_norm: Tensor | None = None
        self.measured, self.fitted = list[Tensor](), list[Tensor]()
        self.best = torch.zeros_like(self.available)
        self.best_scores = torch.ones_like(self.a)
        self.best_merit = torch.full_like(self.weight, math.inf)
        self.waited, self.mark = torch.zeros_like(self.weight), torch.full_like(self.weight, math.inf)
        self.settled = torch.zeros_like(self.weight, dtype=torch.bool)
        self.settled_logits = torch.zeros_like(self.a)
        self.seed, self.taken, self.done, self.late = seed, 0, 0.0, False
        self.generator = torch.Generator(images.device)
        plain = not callable(objective.keep)  # what a callable does can't be known
        self.ask = Replay(engine, self._slope, plain)
        self.look_at = Replay(engine, self._look, plain)

    def run(self, recorder: Recorder) -> Annealed:
        """All steps; after Ctrl-C, where it stood (``recorder.interrupted``)."""
        steps = self.schedule.steps
        try:
            for step in range(1, steps + steps // 2 + 1):
                if step == steps + 1:
                    self._extend()
                looks = (step - 1) % self.schedule.look == 0  # it makes the host wait for the GPU
                if looks and self.done >= self.schedule.judge_from and self.settled.all():
                    break
                self.taken, self.done = step, min(1.0, step / steps)
                over = self.settled[:, 0]
                recorder(self._step(), over=over)
                if step % self.schedule.look == 0 and not self.late:
                    self._close()
        except KeyboardInterrupt:
            recorder.interrupted = True
        finally:
            for replay in (self.ask, self.look_at):
                replay.close()
        logits = torch.where(self.settled, self.settled_logits, self._present_logits())
        met = torch.isfinite(self.best_merit)[:, 0]
        return Annealed(logits, self.log_scores.exp(), self.best, self.best_scores, met)

    def _step(self) -> dict[str, Tensor]:
        schedule, engine = self.schedule, self.engine
        temperature = self._temperature()
        mine = self.group
        available, stretch = self.available[mine], self.log_scores.exp()
        gates = (self.a[mine] / temperature + self._noise()).sigmoid_() * available
        gates = torch.where(engine.leads, available, gates)
        scores = gates * stretch[mine]
        gradient, divergence, cost, agrees = self.ask(scores, self.strictness)
        with torch.no_grad():
            price = self.weight[mine] * engine.cost / self.counts[mine, None]
            slope = (gradient * stretch[mine] + price) * gates * (1 - gates) / temperature
            movable = self.available & ~engine.leads
            self.a += self.walk.step(self._clipped(self._added(slope))) * movable
            self.a.clamp_(-schedule.limit * temperature, schedule.limit * temperature)
            way = schedule.way * temperature
            self.a = torch.where(engine.ways(self.a), self.a.clamp(min=way), self.a)
            if self.scaled:
                change = self.stretch.step(self._added(gradient * scores))
                self.log_scores += change * (self.available & ~self.settled)
            gates = self._added(gates) / self.counts[:, None]
            off, share = self._per_trial(divergence), (gates * engine.cost).sum(1, keepdim=True) / len(engine)
            if self.done < schedule.judge_from:
                self._steer(off, share, self._per_trial(agrees.to(off)))
            else:
                off, agrees, share = self._judge(stretch)
            if self.done >= schedule.strict_from:
                self.strictness *= torch.where(agrees, RELAXED, STRICTER)
                self.strictness.clamp_(0.1 * schedule.strictness, schedule.strictest)
            loss = self._per_trial(cost) + self.weight * share * len(engine)
        return {"kl": off, "agreement": self._per_trial(agrees.to(off)), "kept": share, "loss": loss}

    def _steer(self, off: Tensor, share: Tensor, agreement: Tensor) -> None:
        """Let the penalty's weight follow how far each trial is below its aim, relatively."""
        schedule = self.schedule
        self.measured = [*self.measured, torch.stack([off, share, agreement])][-schedule.window :]
        off, share, agreement = torch.stack(self.measured).median(0).values
        if self.target.kl is not None:
            self.aim = (self.aim * torch.where(agreement == 1, 1.01, 0.99)).clamp(
                schedule.aim, schedule.aim_most
            )
            aim = self.aim * self.target.kl
            miss = (aim - off) / aim
        else:
            wanted = (self.target.keep or 1.0) ** min(1.0, self.done / schedule.judge_from)
            trend = (self.measured[-1][1] - self.measured[0][1]) / len(self.measured)
            miss = (share + schedule.ahead * trend - wanted) / wanted
        self.weight *= (schedule.gain * miss).clamp(-FASTEST, FASTEST).exp()
        self.weight.clamp_(min=LEAST * schedule.weight)

    def _judge(self, stretch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Measure the rounded gates, remember the best, and let the weight follow whether they meet the target."""
        engine = self.engine
        rounded = engine.tied((self.a > 0) & self.available)
        within = rounded.sum(1, keepdim=True) <= (self.target.keep or 1.0) * len(engine)
        if self.target.keep is not None:
            order = self.a.masked_fill(~self.available, -math.inf)
            rounded &= engine.first(order, self.target.keep * len(engine))
        divergence, agrees = self.look_at(rounded * stretch)
        off, agreement = self._per_trial(divergence), self._per_trial(agrees.to(divergence))
        share = rounded.sum(1, keepdim=True).to(off) / len(engine)
        if self.target.kl is not None:
            fits, merit = (off <= self.target.kl) & (agreement == 1), share
        else:
            fits, merit = torch.ones_like(within), off + 1 - agreement
        better = fits & (merit < self.best_merit) & ~self.settled
        much = better & (merit <= (1 - GAIN) * self.mark)
        self.mark = torch.where(much, merit, self.mark)
        self.waited = torch.where(much, 0, self.waited + torch.isfinite(self.mark))
        self.best = torch.where(better, rounded, self.best)
        self.best_scores = torch.where(better, stretch, self.best_scores)
        self.best_merit = torch.where(better, merit, self.best_merit)
        smaller = fits if self.target.kl is not None else ~within
        self.fitted = [*self.fitted, smaller][-self.schedule.window :]
        mostly = torch.stack(self.fitted).to(off).mean(0) > 0.5
        self.weight *= torch.where(mostly, 1.03, 0.95)
        self.weight.clamp_(min=LEAST * self.schedule.weight)
        self._settle()
        return off, agrees, share

    def _settle(self) -> None:
        """Trials that have what they need wait for the others; their results stay as if each were alone."""
        enough = torch.isfinite(self.best_merit)
        if not self.late:
            wait = max(LEAST_WAIT, self.schedule.patience * self.schedule.steps)
            enough &= (self.waited >= wait) & (self.target.kl is not None)
        self.settled_logits = torch.where(enough & ~self.settled, self._present_logits(), self.settled_logits)
        self.settled = self.settled | enough

    def _extend(self) -> None:
        """Where nothing met the bound, give all units back and take the size penalty off, so that the chain grows."""
        self.late = True
        self._settle()
        if self.target.kl is not None and not self.settled.all():
            self.available |= ~self.settled
            self.weight *= self.settled
            self.engine.reopen()

    def _close(self) -> None:
        """Close for good what stays closed, and leave it out physically once no trial has it."""
        schedule, engine = self.schedule, self.engine
        opening = (self.a / self._temperature()).sigmoid() * self.log_scores.exp() * self.available
        opening = torch.where(engine.leads, 0.0, opening)
        room = (opening * engine.cost).sum(1, keepdim=True) * (
            schedule.pool - (schedule.pool - 1) * self.done
        )
        order = opening.sort(dim=1, descending=True, stable=True).indices
        fits = engine.cost[order].cumsum(1) <= room
        first = torch.zeros_like(fits).scatter(1, order, fits)
        self.available &= engine.tied((opening >= schedule.closed) | first)
        engine.close_all_but(self.available.any(0), self.images[:1])

    def _ranks(self) -> Tensor:
        """(G, units_total) from -1 to 1: the rank of mean_x |d answer(x) / d gate| at the full network."""
        units = len(self.engine)
        gates = torch.ones(
            len(self.images), units, device=self.images.device, dtype=self.a.dtype
        ).requires_grad_()
        answer = self.objective.answer(self.engine.logits(gates, self.images, self.each))
        (slope,) = torch.autograd.grad(answer.sum(), gates)
        ranks = self._added(slope.abs()).argsort(dim=1, stable=True).argsort(dim=1)
        return 2 * ranks.to(self.a) / max(1, units - 1) - 1

    def _clipped(self, gradient: Tensor) -> Tensor:
        norm = gradient.norm(dim=1, keepdim=True).clamp(min=1e-12)
        usual = norm if self.usual_norm is None else self.usual_norm
        allowed = torch.minimum(norm, self.schedule.clip * usual)
        self.usual_norm = 0.95 * usual + 0.05 * allowed
        return gradient * (allowed / norm)

    def _noise(self) -> Tensor | float:
        """(N, units_total) logistic noise, a draw for each image."""
        schedule = self.schedule
        ramp = (self.done - schedule.noise_from) / (schedule.noise_to - schedule.noise_from)
        if ramp <= 0:
            return 0.0
        self.generator.manual_seed((1_000_003 * self.seed + self.taken) % 2**63)
        shape = max(self.sizes), len(self.engine)
        draws = torch.rand(shape, generator=self.generator, device=self.images.device)
        noise = schedule.noise * min(1.0, ramp) * draws.clamp_(1e-6, 1 - 1e-6).logit_()
        return noise.to(self.a)[self.place]

    def _present_logits(self) -> Tensor:
        """(G, units_total) a / T; `CLOSED` where a unit was closed for good."""
        return self.engine.tied((self.a / self._temperature()).masked_fill(~self.available, CLOSED))

    def _slope(self, scores: Tensor, strictness: Tensor) -> tuple[Tensor, ...]:
        """The cost's slope by scores (N, units_total); divergence, cost and agreement (N,)."""
        scores = scores.detach().requires_grad_()
        logits = self.engine.logits(scores, self.images, self.each)
        divergence = self.objective.divergence(logits)
        cost = divergence + strictness * self.objective.shortfall(logits)
        (gradient,) = torch.autograd.grad((cost / self.counts[self.group]).sum(), scores)
        return gradient, divergence.detach(), cost.detach(), self.objective.agrees(logits)

    @torch.no_grad()
    def _look(self, scores: Tensor) -> tuple[Tensor, ...]:
        """Of scores (G, units_total): divergence and agreement (N,)."""
        logits = self.engine.logits(scores if self.rows is not None else scores[0], self.images, self.rows)
        return self.objective.divergence(logits), self.objective.agrees(logits)

    def _temperature(self) -> float:
        schedule = self.schedule
        if self.done < schedule.warm_at:
            return schedule.hot * (schedule.warm / schedule.hot) ** (self.done / schedule.warm_at)
        late = (self.done - schedule.warm_at) / (1 - schedule.warm_at)
        return schedule.warm * (schedule.cold / schedule.warm) ** late

    def _added(self, values: Tensor) -> Tensor:
        """(G, ...) sums over each trial's images of (N, ...)."""
        return torch.stack([part.sum(0) for part in values.split(self.sizes)])

    def _per_trial(self, values: Tensor) -> Tensor:
        """(G, 1) means of (N,) values."""
        return (self._added(values.detach()) / self.counts)[:, None]
