"""Why one sample got its class: exact contributions, and the smallest changes that turn the decision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.heads.head import SparseHead


@dataclass(frozen=True)
class Contribution:
    """What one feature adds to a margin.

    Attributes:
        feature: Its number.
        value: z: how many standard deviations above the average it is.
        weight: Difference of the two classes' weights.
        share: weight * value, in logits.
    """

    feature: int
    value: float
    weight: float
    share: float


@dataclass(frozen=True)
class Margin:
    """Why a sample is rather of one class than of another: ``margin == bias + sum of all shares``.

    Attributes:
        class_: The class that is explained.
        against: The other.
        margin: Difference of their logits.
        bias: Difference of their biases.
        contributions: Of every feature with a weight for one of them, the largest |share| first.
    """

    class_: int
    against: int
    margin: float
    bias: float
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True)
class Flip:
    """A smallest set of features whose removal turns a decision.

    Attributes:
        features: What is set to its average, the largest share first.
        before: The class before.
        after: The class after.
    """

    features: tuple[int, ...]
    before: int
    after: int


def contributions(head: SparseHead, features: Tensor, class_: int | str, against: int | str) -> Tensor:
    """What each feature adds to the margin between two classes: (W_aj - W_bj) z_j.

    Args:
        head: With classes a and b.
        features: (N, d).
        class_: a.
        against: b.

    Returns:
        (N, d); their sum over features, + b_a - b_b, is logit a - logit b.
    """
    weights, _ = head.rows
    a, b = head.class_number(class_), head.class_number(against)
    return (weights[a] - weights[b]) * head.standardise(features)


def explain_margin(
    head: SparseHead, features: Tensor, class_: int | str | None = None, against: int | str | None = None
) -> Margin:
    """Why one sample is rather of ``class_`` than ``against``.

    Args:
        head: Multinomial or binary.
        features: (d,).
        class_: None: the predicted class.
        against: None: the class with the largest logit but ``class_``.
    """
    require_classes(head)
    weights, bias = head.rows
    row = features.reshape(1, -1)
    logits = head.logits(row)[0]
    a = int(logits.argmax()) if class_ is None else head.class_number(class_)
    others = logits.index_fill(0, torch.tensor(a), -torch.inf)
    b = int(others.argmax()) if against is None else head.class_number(against)
    z = head.standardise(row)[0]
    difference = weights[a] - weights[b]
    shares = difference * z
    ranked = shares.abs().argsort(dim=0, descending=True, stable=True)
    used = ranked[difference[ranked] != 0].tolist()
    found = tuple(Contribution(j, float(z[j]), float(difference[j]), float(shares[j])) for j in used)
    return Margin(a, b, float(logits[a] - logits[b]), float(bias[a] - bias[b]), found)


def smallest_flip(head: SparseHead, features: Tensor, to: int | str | None = None) -> Flip | None:
    """The fewest features whose removal turns the decision for one sample.

    A removed feature takes its average (z = 0). For one other class the best set takes the features with the largest
    shares of the margin until it is negative; the smallest of these sets over all other classes is the smallest of all,
    since a decision is turned if and only if some class overtakes.

    Args:
        head: Multinomial or binary.
        features: (d,).
        to: The class that must overtake the predicted one (a third may be above both); None: any.

    Returns:
        None if no removal does it.
    """
    require_classes(head)
    weights, bias = head.rows
    z = head.standardise(features.reshape(1, -1))[0]
    logits = head.logits(features.reshape(1, -1))[0]
    top = int(logits.argmax())
    shares = (weights[top] - weights) * z
    ranked = shares.clamp_min(0).sort(dim=1, descending=True, stable=True)
    left = (logits[top] - logits)[:, None] - ranked.values.cumsum(1)
    turned = left < 0
    counts = torch.where(turned.any(1), turned.to(torch.int8).argmax(1) + 1, turned.shape[1] + 1)
    counts[top] = turned.shape[1] + 1
    if to is not None:
        only = torch.full_like(counts, turned.shape[1] + 1)
        only[head.class_number(to)] = counts[head.class_number(to)]
        counts = only
    rival = int(counts.argmin())
    count = int(counts[rival])
    if count > turned.shape[1]:
        return None
    chosen = tuple(ranked.indices[rival, :count].tolist())
    z = z.index_fill(0, torch.tensor(chosen), 0.0)
    return Flip(chosen, top, int((weights @ z + bias).argmax()))


def single_repairs(head: SparseHead, features: Tensor, label: int | str) -> list[int]:
    """The features whose removal alone gives one misclassified sample its right class, the clearest repair first.

    Args:
        head: Multinomial or binary.
        features: (d,).
        label: The right class.
    """
    require_classes(head)
    weights, _ = head.rows
    right = head.class_number(label)
    used = head.features_used
    z = head.standardise(features.reshape(1, -1))[0]
    without = head.logits(features.reshape(1, -1)) - (weights[:, used] * z[used]).T
    others = without.index_fill(1, torch.tensor(right), -torch.inf)
    lead = without[:, right] - others.amax(1)
    order = lead.argsort(dim=0, descending=True, stable=True)
    return used[order[lead[order] > 0]].tolist()


def require_classes(head: SparseHead) -> None:
    """Raise ValueError for a head of numbers."""
    if head.family == "gaussian":
        fix = "Fit the path to classes."
        raise ValueError(explain("SparseHead", "a head of classes", "one of numbers (gaussian)", fix))
