"""What a softmax leaves open: if all classes' weights of a feature move by the same, only the penalty changes."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from pyinterp.elastic.penalty import Penalty


def best_shift(weights: Tensor, penalty: Penalty) -> Tensor:
    """Weights (K, d) whose penalty no shift of a whole column can lower; the answers of a softmax stay the same.

    Each column w takes off the s that minimises l1 sum_k |w_k - s| + l2 / 2 sum_k (w_k - s)^2: the median of all w_k
    and of mean(w) + l1 / l2 (K - 2i) / K for i = 0 to K (Li and Osher, "A new median formula", 2009); for grouped
    penalties it is the mean. A column with many zeros stays as it is.
    """
    if penalty.grouped:
        return weights - weights.mean(0)
    tilt = penalty.l1 * weights.sign().sum(0) + penalty.l2 * weights.sum(0)
    columns = (tilt.abs() > penalty.l1 * (weights == 0).sum(0)).nonzero()[:, 0]
    if not len(columns):
        return weights
    chosen, count = weights[:, columns].double(), len(weights)
    places = torch.arange(count, -count - 1, -2, device=weights.device).double()[:, None] / count
    candidates = chosen.mean(0) + penalty.l1 / max(penalty.l2, sys.float_info.min) * places
    shift = torch.cat([chosen, candidates]).median(0).values
    return weights.index_copy(1, columns, (chosen - shift).to(weights))
