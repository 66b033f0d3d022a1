"""Small heads and paths whose numbers are chosen, not fitted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyinterp.heads import SparseHead, SparsePath

ROWS = {"multinomial": 4, "binary": 1, "gaussian": 2}


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_head(
    seed: int = 0,
    family: str = "multinomial",
    rows: int | None = None,
    width: int = 7,
    used: float = 0.6,
    dtype: torch.dtype = torch.float64,
    **others: Any,
) -> SparseHead:
    """Random weights, of which a share is not zero; feature 1 was constant."""
    generator = draws(seed)
    rows = rows or ROWS[family]
    weights = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weights *= torch.rand(rows, width, generator=generator) < used
    mean = torch.randn(width, generator=generator, dtype=torch.float64)
    std = torch.rand(width, generator=generator, dtype=torch.float64) + 0.5
    weights[:, 1], std[1] = 0, 0
    fields = {"class_names": (), "classifier_name": "", "model_digest": "", "origin": {}, "version": "0"}
    bias = torch.randn(rows, generator=generator, dtype=torch.float64) / 2
    return SparseHead(weights.to(dtype), bias.to(dtype), mean, std, family, **{**fields, **others})


def samples(seed: int, count: int, width: int = 7) -> Tensor:
    return 2 * torch.randn(count, width, generator=draws(1000 + seed), dtype=torch.float64)


def by_hand(head: SparseHead, x: Tensor, removed: tuple[int, ...] = ()) -> list[float]:
    """The logits of one sample (d,), term by term; the features ``removed`` take their average."""
    found = []
    for row, bias in zip(head.weights.tolist(), head.bias.tolist(), strict=True):
        total = bias
        for j, weight in enumerate(row):
            if j not in removed and float(head.std[j]) > 0:
                total += weight * (float(x[j]) - float(head.mean[j])) / float(head.std[j])
        found.append(total)
    return [0.0, *found] if head.family == "binary" else found


def small_path(weights: Tensor, **others: Any) -> SparsePath:
    """A path with these weights (P, K, d), and nothing else of interest."""
    points, rows, width = weights.shape
    zeros, empty = torch.zeros(points, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    fields = {
        "lambdas": torch.logspace(0, -2, points, dtype=torch.float64),
        "biases": torch.zeros(points, rows, dtype=weights.dtype),
        "kkt": zeros,
        "objective": zeros,
        "converged": zeros == 0,
        "passes": torch.ones(points, dtype=torch.int64),
        "train_loss": zeros,
        "train_accuracy": empty,
        "validation_loss": empty,
        "validation_accuracy": empty,
        "mean": torch.zeros(width, dtype=torch.float64),
        "std": torch.ones(width, dtype=torch.float64),
        "alpha": 0.99,
        "family": "multinomial",
        "grouped": False,
        "tolerance": 1e-4,
        "samples": 100,
        "validation_samples": 0,
        "stopped": "grid",
        "settings": {"max_passes": 2000},
        "class_names": (),
        "classifier_name": "",
        "model_digest": "",
        "version": "0",
    }
    return SparsePath(weights=weights, **{**fields, **others})


def growing(counts: list[int], rows: int = 2, width: int = 6, seed: int = 0) -> Tensor:
    """(P, K, d) random weights; at each point so many of all rows together are not zero."""
    weights = torch.randn(len(counts), rows * width, generator=draws(seed), dtype=torch.float64)
    for point, count in enumerate(counts):
        weights[point, torch.randperm(rows * width, generator=draws(seed + point))[count:]] = 0
    return weights.view(len(counts), rows, width)
