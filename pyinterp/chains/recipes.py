"""From options to gates: the paper's penalties, or the smallest chain within a target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pyinterp.chains.anneal import Anneal, Schedule, Target
from pyinterp.chains.checks import Options
from pyinterp.chains.engine import Engine
from pyinterp.chains.objective import Objective
from pyinterp.chains.penalty import optimise_scores
from pyinterp.chains.progress import Recorder
from pyinterp.chains.search import Search
from pyinterp.chains.tune import tune_scores

REPAIR_MOVES, PRUNE_MOVES, TUNE_STEPS, ROUNDS = 24, 80, 60, 3


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
    """The paper's recipe; see `optimise_scores`. Units that nobody reads are taken out at the end."""
    gates = optimise_scores(engine, images, objective, group, options, recorder)
    return [Found(trial, row * engine.live(row > 0)) for trial, row in enumerate(gates)]


def find_by_target(
    engine: Engine, images: Tensor, objective: Objective, group: Tensor, options: Options, recorder: Recorder
) -> list[Found]:
    """Anneal all trials at once; then search in each, so that its bound holds with as few units as it takes."""
    recorder.phase = "anneal"
    schedule = Schedule(steps=options.steps)
    target = Target(options.target_kl, options.target_keep)
    scaled = options.mode == "scaled"
    run = Anneal(engine, images, objective, group, target, schedule, scaled, options.seed)
    annealed = run.run(recorder)
    found = []
    for trial, (order, scores) in enumerate(zip(annealed.logits, annealed.scores, strict=True)):
        mine = group == trial
        search = Search(engine, images[mine], objective.take(mine), scores, partial(recorder, trial=trial))
        if options.target_kl is not None:
            gates = _within_divergence(search, order, options.target_kl, scaled, recorder)
        else:
            gates = _within_size(search, order, options.target_keep or 1.0, scaled, recorder)
        found.append(Found(trial, gates))
    return found


def _within_divergence(
    search: Search, order: Tensor, bound: float, scaled: bool, recorder: Recorder
) -> Tensor:
    """The smallest set of units found whose divergence is at most ``bound``, as gates."""
    engine = search.engine
    kept = engine.live(_always_open(engine, order > 0))
    try:
        recorder.phase = "repair"
        if scaled:
            search.scores = tune_scores(search, kept, TUNE_STEPS)
        kept = search.repair(kept, bound, REPAIR_MOVES)
        if not search.value_whole(kept).meets(bound):
            kept = search.grow(kept, order, bound)
        recorder.phase = "prune"
        for _ in range(ROUNDS if scaled else 1):
            kept = search.prune(kept, bound, PRUNE_MOVES)
            if scaled:
                search.scores = tune_scores(search, kept, TUNE_STEPS)
        kept = search.close_layers(kept, bound)
    except KeyboardInterrupt:
        recorder.interrupted = True
    if not search.value_whole(kept).meets(bound):
        kept = search.grow(kept, order, bound)
    return search.scores * kept


def _within_size(search: Search, order: Tensor, share: float, scaled: bool, recorder: Recorder) -> Tensor:
    """The units that the annealing opened most, as many as allowed, as gates."""
    engine = search.engine
    allowed = int(share * int(engine.is_unit.sum()))
    ranked = order.masked_fill(~engine.is_unit, float("-inf")).topk(allowed).indices
    kept = torch.zeros_like(engine.is_unit).index_fill(0, ranked, True) & (order > -20)
    kept = engine.live(_always_open(engine, kept))
    if scaled and not recorder.interrupted:
        recorder.phase = "tune"
        search.scores = tune_scores(search, kept, ROUNDS * TUNE_STEPS)
    return search.scores * kept


def _always_open(engine: Engine, kept: Tensor) -> Tensor:
    """Layers stay while the units are chosen; a layer without units goes by itself."""
    return kept | ~engine.is_unit
