"""How few features it takes: NEC and ANEC of heads, NCC of decisions, and features at random to compare with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.given import values_of
from pyinterp.heads.head import SparseHead, changed
from pyinterp.heads.labels import labels_for
from pyinterp.heads.select import head_at
from pyinterp.heads.sparse_path import SparsePath

ROUNDING = 1e-9  # share of a sum that its order may change
LEVELS = (5, 10, 15, 20, 25, 30)


def at_nec(path: SparsePath, features_per_class: float) -> SparseHead:
    """The first head of the path with that many non-zero weights per class or more, cut to exactly as many.

    The smallest weights of all classes together become zero, so that nnz(W) = round(NEC * K), and at least 1; no refit.

    Args:
        path: Of any family.
        features_per_class: NEC, the mean over classes.

    Raises:
        ValueError: The path ends before, or the number is not above 0.

    Source: Srivastava, Yan and Weng, "VLG-CBM", NeurIPS 2024.
    """
    if not features_per_class > 0:
        fix = "Pass the mean number of features that a class may use."
        raise ValueError(explain("at_nec", "features_per_class above 0", features_per_class, fix))
    used = path.features_per_class
    enough = (used >= features_per_class).nonzero()[:, 0]
    if not len(enough):
        wanted = f"a path that reaches {features_per_class:g} features per class"
        fix = "Fit the path further, or pass a smaller number."
        raise ValueError(explain("at_nec", wanted, f"at most {float(used.max()):.1f}", fix))
    head = head_at(path, int(enough[0]))
    count = max(1, round(features_per_class * len(head.weights)))
    flat = head.weights.flatten()
    kept = flat.abs().topk(count).indices
    cut = torch.zeros_like(flat).scatter(0, kept, flat[kept]).view_as(head.weights)
    return changed(head, cut, cut_to=features_per_class)


def anec(
    path: SparsePath,
    features: Tensor | Features,
    labels: Tensor | None = None,
    levels: Sequence[float] = LEVELS,
) -> dict[float, float]:
    """Accuracy at each NEC (number of effective concepts: non-zero weights per class); their mean is ANEC-avg.

    Args:
        path: Multinomial or binary.
        features: (N, d) test samples, or what `extract_features` gave.
        labels: (N,); None takes those of the features.
        levels: ANEC-5 is the accuracy at 5.

    Returns:
        Level -> accuracy; NaN where the path ends before, with a warning that names these levels.

    Raises:
        TypeError: As `SparseHead.accuracy`.
        ValueError: As `SparseHead.accuracy`; a level that is not above 0.
    """
    used = path.features_per_class
    beyond = [level for level in levels if level > 0 and not bool((used >= level).any())]
    heads = {level: at_nec(path, level) for level in levels if level not in beyond}
    values, labels = labels_for("anec", head_at(path, 0), features, labels)
    if beyond:
        got = f"at most {float(used.max()):.1f}: NaN at {', '.join(f'{level:g}' for level in beyond)}"
        fix = "Fit the path further (a smaller min_ratio, a larger max_features_per_class), or pass other levels."
        wanted = f"a path that reaches {max(beyond):g} features per class"
        warnings.warn(explain("anec", wanted, got, fix), stacklevel=2)
    return {
        level: heads[level].accuracy(values, labels, "anec") if level in heads else math.nan
        for level in levels
    }


def ncc(head: SparseHead, features: Tensor | Features, share: float = 0.95) -> float:
    """NCC: how many features make up a decision, averaged over samples and classes.

    For a sample and a class: the smallest number of features whose |w_j z_j| add up to ``share`` of the sum over all.

    Args:
        head: Of any family; a binary one counts as one class.
        features: (N, d), or what `extract_features` gave.
        share: 0 to 1.

    Raises:
        TypeError: No features.
        ValueError: A share out of range; no samples, or features that don't fit.
    """
    if not 0 < share <= 1:
        raise ValueError(explain("ncc", "a share above 0, at most 1", share, "Pass 0.95."))
    features = head.require_features("ncc", features)
    if not len(features):
        raise ValueError(explain("ncc", "at least one sample", "none", "Pass some features."))
    total = 0
    supports = [(row.nonzero()[:, 0], row) for row in head.weights]
    for _, z in head.chunks("ncc", features):
        columns = z.T.contiguous()
        for used, row in supports:
            if len(used):
                parts = (columns[used].T.contiguous() * row[used]).abs().double()
                # All but the smallest, which together have less than the rest; NumPy sorts short rows much faster.
                sums = torch.from_numpy(np.sort(parts.numpy(), axis=1)).cumsum(1)
                total += int((sums > (1 - share + ROUNDING) * sums[:, -1:]).sum())
    return total / (len(features) * len(head.weights))


def random_features(features: Tensor | Features, width: int | None = None, *, seed: int = 0) -> Tensor:
    """Random directions of the features, the baseline for what named or selected features are worth.

    Each is a Gaussian mixture of all features, so that a path of them shows what accuracy any directions would reach.

    Args:
        features: (N, d) floats, or what `extract_features` gave.
        width: How many; None: d.
        seed: The same directions for training and test samples.

    Returns:
        (N, width), in the dtype of the features.

    Raises:
        TypeError: No float tensor.
        ValueError: No rows of features, or a width below 1.
    """
    features = values_of("random_features", features)
    if not features.is_floating_point():
        fix = "Pass what extract_features gave, or .float() of whole numbers."
        raise TypeError(explain("random_features", "a float tensor (N, d)", features.dtype, fix))
    if features.dim() != 2:
        fix = "Put the samples on the first axis."
        raise ValueError(explain("random_features", "features (N, d)", tuple(features.shape), fix))
    count = features.shape[1]
    width = count if width is None else width
    if width < 1:
        raise ValueError(explain("random_features", "a width of at least 1", width, "Pass another one."))
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, width, generator=generator, dtype=torch.float64) / count**0.5
    return features @ mixed.to(features)
