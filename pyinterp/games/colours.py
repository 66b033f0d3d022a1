"""Colours for players, so that those who meet anywhere differ: then one image serves many subsets at once."""

from __future__ import annotations

import torch
from torch import Tensor


def meeting(reach: Tensor) -> Tensor:
    """Who meets whom: bool (n, n), True where two players reach a common position.

    Args:
        reach: bool (n, H, W).
    """
    flat = reach.flatten(1).float()
    met = flat @ flat.T > 0
    return met.fill_diagonal_(False)


def colour(met: Tensor) -> tuple[int, ...]:
    """A colour per player, counted from 0, different for players who meet; few colours, not always the fewest.

    Greedy by saturation (Brélaz, "New methods to color the vertices of a graph", 1979): the next player is the one
    whose neighbours have the most colours already, then the one with the most neighbours, then the first.

    Args:
        met: bool (n, n), symmetric.
    """
    count = len(met)
    neighbours = [set(torch.nonzero(row).flatten().tolist()) for row in met]
    found: dict[int, int] = {}
    while len(found) < count:
        taken = {i: {found[j] for j in neighbours[i] if j in found} for i in range(count) if i not in found}
        best = max(taken, key=lambda i: (len(taken[i]), len(neighbours[i]), -i))
        found[best] = next(c for c in range(count) if c not in taken[best])
    return tuple(found[i] for i in range(count))
