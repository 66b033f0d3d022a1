"""From options to gates: the paper's penalties, or the smallest chain within a target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from pyinterp.chains.anneal import Anneal, Annealed, Schedule, Target
from pyinterp.chains.checks import Options
from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Objective
from pyinterp.chains.penalty import optimise_scores
from pyinterp.chains.progress import Recorder
from pyinterp.chains.search import Search
from pyinterp.chains.tune import tune_scores

PRUNE_TRIALS, TUNE_STEPS, ROUNDS, LOWER_AIM = 600, 60, 2, 0.35


@dataclass(frozen=True)
class Found:
    """What a search ends with, for one trial.

    Attributes:
        trial: Its number.
        gates: (units_total,) what each unit is multiplied by; 0 where it is removed.
    """

    trial: int
    gates: Tensor


def find_by_penalty(
    engine: Engine, images: Tensor, objective: Objective, group: Tensor, options: Options, recorder: Recorder
) -> list[Found]:
    """The paper's recipe; see `optimise_scores`."""
    gates = optimise_scores(engine, images, objective, group, options, recorder)
    return [Found(trial, row) for trial, row in enumerate(gates)]


def find_by_target(
    engine: Engine, images: Tensor, objective: Objective, group: Tensor, options: Options, recorder: Recorder
) -> list[Found]:
    """Anneal all trials at once; then search in each, so that its bound holds with as few units as it takes.

    Args:
        engine: Of units alone; a layer goes with its last unit.
        images, objective, group, options, recorder: Of the call.
    """
    scaled = options.mode == "scaled"
    annealed = _anneal(engine, images, objective, group, options, recorder)
    found = []
    for trial in range(len(annealed.met)):
        mine = group == trial
        met = bool(annealed.met[trial])
        order = annealed.logits[trial]
        kept = annealed.best[trial] if met else order > 0
        scores = annealed.best_scores[trial] if met else annealed.scores[trial]
        report = partial(recorder, trial=trial)
        search = Search(engine, images[mine], objective.take(mine), scores, report, options.seed)
        if options.target_kl is not None:
            gates = _within_divergence(search, kept, order, options.target_kl, scaled, recorder)
        else:
            gates = _within_size(search, kept, order, options.target_keep or 1.0, scaled, recorder)
        found.append(Found(trial, gates))
    return found


def _anneal(
    engine: Engine, images: Tensor, objective: Objective, group: Tensor, options: Options, recorder: Recorder
) -> Annealed:
    """One run for all trials; where nothing met a bound on the divergence, another one that aims lower."""
    recorder.phase = "anneal"
    target = Target(options.target_kl, options.target_keep)
    scaled = options.mode == "scaled"
    schedule = Schedule(options.steps)
    first = Anneal(engine, images, objective, group, target, schedule, scaled, options.seed).run(recorder)
    if first.met.all() or target.kl is None or recorder.interrupted:
        return first
    recorder.phase = "anneal again"
    engine.reopen()
    lower = replace(schedule, aim=LOWER_AIM, aim_most=LOWER_AIM)
    try:
        again = Anneal(engine, images, objective, group, target, lower, scaled, options.seed)
        again.settled = first.met[:, None]
        second = again.run(recorder)
    except KeyboardInterrupt:
        recorder.interrupted = True
        return first
    return second.where(second.met & ~first.met, first)


def _within_divergence(
    search: Search, kept: Tensor, order: Tensor, bound: float, scaled: bool, recorder: Recorder
) -> Tensor:
    """The smallest set of units found whose divergence is at most ``bound``, as gates."""
    try:
        if not recorder.interrupted:
            kept = search.engine.live(kept)
            for _ in range(ROUNDS if scaled else 1):
                if scaled:
                    recorder.phase = "tune"
                    tune_scores(search, kept, TUNE_STEPS)
                recorder.phase = "grow"
                if not search.value_whole(kept).meets(bound):
                    kept = search.grow(kept, order, bound)
                recorder.phase = "prune"
                kept = search.prune(kept, bound, PRUNE_TRIALS)
    except KeyboardInterrupt:
        recorder.interrupted = True
        kept = kept if search.kept is None else search.kept
    try:
        if not search.value_whole(kept).meets(bound):
            kept = search.grow(kept, order, bound)
    except KeyboardInterrupt:  # a second one: as it is, and it says that it misses its bound
        recorder.interrupted = True
    return search.scores * kept


def _within_size(
    search: Search, kept: Tensor, order: Tensor, share: float, scaled: bool, recorder: Recorder
) -> Tensor:
    """The best units found of which no more than a share is open, as gates."""
    engine = search.engine
    allowed = share * len(engine)
    full = engine.first(order, allowed)
    if int(kept.sum()) > allowed:
        kept = full & kept
    try:
        if not recorder.interrupted:
            if search.value_whole(full).cost < search.value_whole(kept).cost:
                kept = full
            kept = engine.live(kept)
            if scaled:
                recorder.phase = "tune"
                tune_scores(search, kept, ROUNDS * TUNE_STEPS)
    except KeyboardInterrupt:
        recorder.interrupted = True
    return search.scores * kept
