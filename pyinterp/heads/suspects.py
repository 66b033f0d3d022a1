"""Suspects: features that a model would decide better without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.head import SparseHead
from pyinterp.heads.labels import labels_for


@dataclass(frozen=True)
class Suspect:
    """A feature whose removal makes more decisions right than wrong.

    Attributes:
        feature: Its number.
        class_: What most of the errors that it repairs were taken for.
        repaired: How many errors become right without it.
        broken: How many right decisions become errors.
        p_value: Of a sign test on these two, one-sided, times the number of features tried (Bonferroni); at most 1.
        samples: The repaired ones.
    """

    feature: int
    class_: int
    repaired: int
    broken: int
    p_value: float
    samples: tuple[int, ...]


def suspects(
    head: SparseHead, features: Tensor | Features, labels: Tensor | None = None, *, level: float = 0.05
) -> list[Suspect]:
    """Features without which the head is right more often, found one after the other.

    In each round every feature that is still used is taken away alone (z = 0). Of those that repair more than they
    break, so clearly that a sign test sees it, the one with the largest difference goes for good; the next round looks
    for another. ``head.without([one.feature for one in found])`` is the head that is left.

    A feature that helps on these samples can't be found, whatever it looks at. So the samples must not share the flaw
    of the training set: take them from where the model is used, or from groups of equal size. And they must be others
    than the head was fitted to, or nothing looks too bad.

    Args:
        head: Multinomial or binary.
        features: (N, d), or what `extract_features` gave; not of the training samples.
        labels: (N,); None takes those of the features.
        level: Above 0, at most 1: how often a feature may be reported where removal helps and hurts alike.

    Returns:
        In the order of removal; repaired and broken count from what the round before left.

    Raises:
        TypeError: Features or labels of a wrong type.
        ValueError: Shapes that don't fit, no samples, labels that are no classes of this head, a head of numbers, or a
            level out of range.
    """
    if not 0 < level <= 1:
        raise ValueError(explain("suspects", "a level above 0, at most 1", level, "Pass 0.05."))
    features, labels = labels_for("suspects", head, features, labels)
    found: list[Suspect] = []
    while (best := _clearest(head, features, labels, level)) is not None:
        found.append(best)
        head = head.without(best.feature)
    return found


def _clearest(head: SparseHead, features: Tensor, labels: Tensor, level: float) -> Suspect | None:
    weights, bias = head.rows
    z = head.standardise(features, "suspects")
    logits = torch.addmm(bias, z, weights.T)
    before = logits.argmax(1)
    two = logits.topk(2, 1).values
    lead = two[:, 0] - two[:, 1]
    used = head.features_used.tolist()
    best: Suspect | None = None
    for j in used:
        column = weights[:, j]
        # The removal moves two logits apart by at most this: all other decisions stay.
        reach = z[:, j].abs() * (column.clamp_min(0).max() - column.clamp_max(0).min())
        near = (lead <= reach).nonzero()[:, 0]
        after = (logits[near] - z[near, j, None] * column).argmax(1)
        repaired = near[(before[near] != labels[near]) & (after == labels[near])]
        broken = int(((before[near] == labels[near]) & (after != labels[near])).sum())
        gain = len(repaired) - broken
        if gain <= (best.repaired - best.broken if best else 0):
            continue
        p_value = min(1.0, len(used) * _sign_test(len(repaired), broken))
        if p_value <= level:
            taken_for = int(before[repaired].mode().values)
            best = Suspect(j, taken_for, len(repaired), broken, p_value, tuple(repaired.tolist()))
    return best


def _sign_test(more: int, fewer: int) -> float:
    """Probability that of ``more + fewer`` fair coins at least ``more`` show heads."""
    count = more + fewer
    heads = torch.arange(more, count + 1, dtype=torch.float64)
    ways = math.lgamma(count + 1) - torch.lgamma(heads + 1) - torch.lgamma(count - heads + 1)
    return float(torch.logsumexp(ways - count * math.log(2), 0).exp())
