"""Rows with classes for the tests of the heads, and the objective written out from its definition."""

from __future__ import annotations

import torch
from torch import Tensor


def classes(count: int = 300, width: int = 10, outputs: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated, uncentred float64 features (count, width) and labels that depend on a few of them."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    features = torch.randn(count, width, generator=generator, dtype=torch.float64) @ (
        mix + 2 * torch.eye(width)
    )
    weights = torch.randn(outputs, width, generator=generator, dtype=torch.float64)
    weights[:, width // 2 :] = 0
    noise = torch.rand(count, outputs, generator=generator, dtype=torch.float64).log().neg().log().neg()
    labels = (features @ weights.T / 2 + noise).argmax(1)
    labels[:outputs] = torch.arange(outputs)
    return 3 * features + 5, labels


def standardised(features: Tensor) -> Tensor:
    return (features - features.mean(0)) / features.std(0, correction=0)


def loss_of(family: str, logits: Tensor, label: Tensor) -> Tensor:
    """Of one row of logits."""
    if family == "multinomial":
        return logits.exp().sum().log() - logits[label]
    if family == "binary":
        return (1 + logits[0].exp()).log() - label * logits[0]
    return ((logits - label) ** 2).sum() / 2


def objective(
    family: str,
    z: Tensor,
    labels: Tensor,
    weights: Tensor,
    bias: Tensor,
    strength: float,
    alpha: float,
    grouped: bool = False,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """mean_i w_i loss_i + lambda (alpha norm(W) + (1 - alpha) / 2 ||W||^2), row by row."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(z)):
        share = 1.0 if sample_weights is None else sample_weights[i]
        total = total + share * loss_of(family, weights @ z[i] + bias, labels[i])
    norm = weights.norm(dim=0).sum() if grouped else weights.abs().sum()
    return total / len(z) + strength * (alpha * norm + (1 - alpha) / 2 * (weights**2).sum())
