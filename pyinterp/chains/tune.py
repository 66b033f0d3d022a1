"""The scores of a fixed set of units, fitted to the full network's answer."""

from __future__ import annotations

from torch import Tensor

from pyinterp.chains.adam import Adam
from pyinterp.chains.search import Search

LR, BETAS = 0.02, (0.9, 0.99)


def tune_scores(search: Search, kept: Tensor, steps: int) -> Tensor:
    """Minimise mean divergence + shortfall over the logarithms of the kept units' scores, by Adam.

    Args:
        search: The trial, with the scores to start from.
        kept: (units_total,) bool.
        steps: Optimisation steps.

    Returns:
        (units_total,) positive scores, the best seen.
    """
    engine = search.engine
    engine.reopen()
    engine.close_all_but(kept, search.images[:1])
    best = search.scores
    log = best.log()
    walk = Adam(log, LR, BETAS)
    lowest = float("inf")
    for step in range(steps + 1):
        scores = log.exp()
        search.scores = scores
        value, gradient = search.slopes(kept)
        if value.cost < lowest:
            best, lowest = scores, value.cost
        search.tell(value, kept)
        if step < steps:
            log = log + walk.step(gradient * kept) * kept
    search.scores = best
    return best
