"""Samples and oracles that the tests of gate and gated_affine share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# (shape of x, dim, groups): conv maps, odd sizes, tokens, heads, plain features, size-1 and empty inputs.
SITES = [
    ((2, 3, 4, 5), 1, 0),
    ((3, 5, 7, 7), 1, 4),
    ((2, 40, 9, 9), 1, 0),
    ((2, 70, 1, 3), 1, 2),
    ((2, 9, 48), 2, 0),
    ((3, 5, 33), -1, 2),
    ((2, 6, 12, 8), 2, 3),
    ((5, 3), 1, 2),
    ((6, 2, 3), 0, 0),
    ((9,), 0, 0),
    ((1, 1, 1, 1), 1, 1),
    ((4, 3, 130, 130), 1, 0),
    ((0, 3, 2, 2), 1, 0),
    ((2, 0, 2, 2), 1, 0),
    ((0, 3), 1, 2),
]
SMALL = [((2, 3, 4, 5), 1, 0), ((2, 3, 3), 2, 2), ((2, 2, 2, 3), 2, 3)]
TEMPERATURES = [None, 0.3]


def site_tensors(shape: tuple[int, ...], dim: int, groups: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return random x, scores and group of a site."""
    channels = shape[dim]
    scores = torch.randn((groups, channels) if groups else (channels,))
    group = torch.randint(groups, (shape[0],)) if groups else None
    return torch.randn(shape), scores, group


def gates(x: Tensor, scores: Tensor, temperature: float | None, dim: int, group: Tensor | None) -> Tensor:
    """Return the gate of every number in x, in plain differentiable torch."""
    g = scores if temperature is None else torch.sigmoid(scores / temperature)
    dim %= x.dim()
    index = torch.arange(x.shape[dim], device=x.device)
    index = index.reshape([-1 if axis == dim else 1 for axis in range(x.dim())]).expand(x.shape)
    if group is None:
        return g[index]
    row = group.reshape([-1] + [1] * (x.dim() - 1)).expand(x.shape)
    return g[row, index]


def gate_of(
    index: tuple[int, ...],
    scores: np.ndarray,
    temperature: float | None,
    dim: int,
    group: np.ndarray | None,
) -> float:
    """Return the gate of one number, straight from the definition."""
    score = scores[index[dim]] if group is None else scores[group[index[0]], index[dim]]
    return float(score) if temperature is None else 1 / (1 + np.exp(-float(score) / temperature))
