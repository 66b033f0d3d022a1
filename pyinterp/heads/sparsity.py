"""How few features it takes: NEC and ANEC of heads, NCC of decisions, and features at random to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.heads.head import SparseHead
from pyinterp.heads.select import head_at
from pyinterp.heads.sparse_path import SparsePath

LEVELS = (5, 10, 15, 20, 25, 30)


def at_nec(path: SparsePath, features_per_class: float) -> SparseHead:
    """The first head of the path with that many non-zero weights per class or more, cut to exactly as many.

    The smallest weights of all classes together become zero, so that nnz(W) = round(NEC * K); no refit.

    Raises:
        ValueError: The path ends before.

    Source: Srivastava, Yan and Weng, "VLG-CBM", NeurIPS 2024.
    """
    enough = (path.features_per_class >= features_per_class).nonzero()[:, 0]
    if not len(enough) or not features_per_class > 0:
        got = f"at most {float(path.features_per_class.max()):.1f}"
        fix = "Fit the path further, or pass another number."
        raise ValueError(explain("at_nec", f"{features_per_class:g} features per class", got, fix))
    head = head_at(path, int(enough[0]))
    count = max(1, round(features_per_class * len(head.weights)))
    flat = head.weights.flatten()
    kept = flat.abs().topk(count).indices
    cut = torch.zeros_like(flat).scatter(0, kept, flat[kept]).view_as(head.weights)
    return replace(head, weights=cut, origin={**head.origin, "nec": features_per_class})


def anec(
    path: SparsePath, features: Tensor, labels: Tensor, levels: Sequence[float] = LEVELS
) -> dict[float, float]:
    """Accuracy at each NEC (number of effective concepts: non-zero weights per class); their mean is ANEC-avg.

    Args:
        path: Multinomial or binary.
        features: (N, d) test samples.
        labels: (N,).
        levels: ANEC-5 is the accuracy at 5.
    """
    return {level: at_nec(path, level).accuracy(features, labels) for level in levels}


def ncc(head: SparseHead, features: Tensor, share: float = 0.95) -> float:
    """NCC: how many features make up a decision, averaged over samples and classes.

    For a sample and a class: the smallest number of features whose |w_j z_j| add up to ``share`` of the sum over all.

    Args:
        head: Any.
        features: (N, d).
        share: 0 to 1.
    """
    if not 0 < share <= 1:
        raise ValueError(explain("ncc", "a share above 0, at most 1", share, "Pass 0.95."))
    z = head.standardise(features)
    total = 0
    for weights in head.weights:
        used = weights.nonzero()[:, 0]
        parts = (z[:, used] * weights[used]).abs().double().sort(1, descending=True).values
        sums = parts.cumsum(1)
        if len(used):
            needed = share * sums[:, -1:]
            total += int(((sums < needed * (1 - 1e-9)).sum(1) + (needed[:, 0] > 0)).sum())
    return total / (len(z) * len(head.weights))


def random_features(features: Tensor, width: int | None = None, *, seed: int = 0) -> Tensor:
    """Random directions of the features, the baseline for what named or selected features are worth.

    Each is a Gaussian mixture of all features, so that a path of them shows what accuracy any directions would reach.

    Args:
        features: (N, d).
        width: How many; None: d.
        seed: The same directions for training and test samples.

    Returns:
        (N, width), like `features`.
    """
    count = features.shape[1]
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, width or count, generator=generator, dtype=torch.float64) / count**0.5
    return features @ mixed.to(features)
