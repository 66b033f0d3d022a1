"""Loss and accuracy of many heads on the same rows, which are read once."""

from __future__ import annotations

import torch
from torch import Tensor

from pyinterp.elastic.rows import Rows


def evaluate_points(rows: Rows, weights: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean loss without penalty, and weighted share of rows whose label is predicted.

    Args:
        rows: Of M samples.
        weights: (P, K, d), for standardised features.
        biases: (P, K).

    Returns:
        Two (P,) float64 tensors; the accuracies are meaningless for numbers as labels.
    """
    losses, hits = torch.zeros(2, len(weights), dtype=torch.float64)
    total = 0.0
    for chunk in rows.chunks():
        at = chunk.features.device
        counts = torch.ones(len(chunk.features), device=at) if chunk.weights is None else chunk.weights
        total += float(counts.sum(dtype=torch.float64))
        for point in range(len(weights)):
            logits = chunk.logits(weights[point], biases[point])
            if not rows.family.quadratic:
                right = rows.family.predict(logits) == chunk.labels
                hits[point] += float((counts * right).sum(dtype=torch.float64))
            losses[point] += float(
                rows.family.residual_(logits, chunk.labels, chunk.weights).sum(dtype=torch.float64)
            )
    return losses / total, hits / total
