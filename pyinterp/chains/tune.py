"""The scores of a fixed set of units, fitted to the full network's answer."""

from __future__ import annotations

import torch
from torch import Tensor

from pyinterp.chains.adam import Adam
from pyinterp.chains.search import Search

LR, BETAS = 0.02, (0.9, 0.99)
STRICTER, STRICTEST = 1.1, 100.0


def tune_scores(search: Search, kept: Tensor, steps: int) -> None:
    """Minimise mean divergence + u * shortfall over the logarithms of the kept units' scores, by Adam.

    u starts at 1 and grows by the step for images whose top class is another. The best scores seen stay in the search,
    after Ctrl-C too: those with the most images that keep their top class, and of these the ones of least cost.

    Args:
        search: The trial, with the scores to start from.
        kept: (units_total,) bool.
        steps: Optimisation steps.
    """
    engine = search.engine
    engine.reopen()
    engine.close_all_but(kept, search.images[:1])
    best = search.scores
    log = best.log()
    walk = Adam(log, LR, BETAS)
    strictness = torch.ones(len(search.images), device=log.device, dtype=log.dtype)
    least = (float("inf"), float("inf"))
    try:
        for step in range(steps + 1):
            search.scores = log.exp()
            value, agrees, gradient = search.slopes(kept, strictness)
            if (-value.agreement, value.cost) < least:
                best, least = search.scores, (-value.agreement, value.cost)
            search.tell(value, kept)
            if step < steps:
                log = log + walk.step(gradient * kept) * kept
                strictness = torch.where(agrees, strictness, STRICTER * strictness).clamp(max=STRICTEST)
    finally:
        search.scores = best
