"""Why one sample got its class: exact contributions, and the smallest changes that turn the decision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.head import SparseHead
from pyinterp.heads.labels import require_classes
from pyinterp.heads.removal import Support


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
    """Few features whose removal turns a decision.

    Attributes:
        features: What is set to its average, the largest share first.
        before: The class before.
        after: The class after.
        rival: The class that overtakes the one before; `after`, unless a third is above both.
        smallest: Whether it is proven that no smaller set does it.
    """

    features: tuple[int, ...]
    before: int
    after: int
    rival: int
    smallest: bool = True


def contributions(
    head: SparseHead, features: Tensor | Features, class_: int | str, against: int | str
) -> Tensor:
    """What each feature adds to the margin between two classes: (W_aj - W_bj) z_j.

    Args:
        head: With classes a and b.
        features: (N, d), or what `extract_features` gave.
        class_: a.
        against: b.

    Returns:
        (N, d); their sum over features, + b_a - b_b, is logit a - logit b.

    Raises:
        ValueError: There is no such class, or features that don't fit.
    """
    weights, _ = head.rows
    a, b = head.class_number(class_), head.class_number(against)
    return (weights[a] - weights[b]) * head.standardise(features, "contributions")


def explain_margin(
    head: SparseHead, features: Tensor, class_: int | str | None = None, against: int | str | None = None
) -> Margin:
    """Why one sample is rather of ``class_`` than ``against``.

    Args:
        head: Multinomial or binary.
        features: (d,).
        class_: None: the predicted class, or the best one but ``against``.
        against: None: the class with the largest logit but ``class_``.

    Raises:
        ValueError: There is no such class, both are the same, several samples, or a head of numbers.
    """
    require_classes("explain_margin", head)
    weights, bias = (part.double() for part in head.rows)
    z = head.standardise(_one("explain_margin", features), "explain_margin")[0].double()
    logits = weights @ z + bias
    b = None if against is None else head.class_number(against)
    a = _best(logits, b) if class_ is None else head.class_number(class_)
    b = _best(logits, a) if b is None else b
    if a == b:
        fix = "Leave one of them out: the class with the largest logit takes its place."
        raise ValueError(explain("explain_margin", "two classes", f"{head.name(a)} twice", fix))
    difference = weights[a] - weights[b]
    shares = difference * z
    lift = bias[a] - bias[b]
    ranked = shares.abs().argsort(dim=0, descending=True, stable=True)
    used = ranked[difference[ranked] != 0].tolist()
    found = tuple(Contribution(j, float(z[j]), float(difference[j]), float(shares[j])) for j in used)
    return Margin(a, b, float(lift + shares.sum()), float(lift), found)


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

    Raises:
        ValueError: ``to`` is no class or the predicted one; several samples, or a head of numbers.
    """
    require_classes("smallest_flip", head)
    rival = None if to is None else head.class_number(to)
    support = Support.of(head)
    z = head.standardise(_one("smallest_flip", features), "smallest_flip").double()
    if int(support.logits(z).argmax()) == rival:
        fix = "Pass another class, or None for any."
        raise ValueError(explain("smallest_flip", "a class other than the predicted one", repr(to), fix))
    return _some_flips(support, z, rival)[0]


def smallest_flips(
    head: SparseHead, features: Tensor | Features, to: int | str | None = None
) -> list[Flip | None]:
    """`smallest_flip` for many samples at once.

    Args:
        head: Multinomial or binary.
        features: (N, d), or what `extract_features` gave.
        to: As in `smallest_flip`.

    Returns:
        N of them; None also where ``to`` is the predicted class.

    Raises:
        ValueError: ``to`` is no class, features that don't fit, or a head of numbers.
    """
    require_classes("smallest_flips", head)
    rival = None if to is None else head.class_number(to)
    support = Support.of(head)
    return [
        flip
        for _, rows in head.chunks("smallest_flips", features)
        for some in rows.split(support.at_once())
        for flip in _some_flips(support, some.double(), rival)
    ]


def single_repairs(head: SparseHead, features: Tensor, label: int | str) -> list[int]:
    """The features whose removal alone gives one misclassified sample its right class, the clearest repair first.

    Args:
        head: Multinomial or binary.
        features: (d,).
        label: The right class.

    Raises:
        ValueError: There is no such class, or it is the predicted one; several samples, or a head of numbers.
    """
    support, z, logits, right = _error("single_repairs", head, features, label)
    _, found, lead = support.repairs(z, logits, torch.tensor([right]))
    ranked = sorted(zip(found.tolist(), lead.tolist(), strict=True), key=lambda one: (-one[1], one[0]))
    return [feature for feature, _ in ranked]


def smallest_repair(head: SparseHead, features: Tensor, label: int | str) -> Flip | None:
    """Few features whose removal gives one misclassified sample its right class.

    All single features and all pairs are tried; larger sets are grown greedily. `Flip.smallest` tells whether a smaller
    one is ruled out: always up to three features, and for more where some class alone needs as many to fall below.

    Args:
        head: Multinomial or binary.
        features: (d,).
        label: The right class, which is above all others without these features.

    Returns:
        None if no set was found; where several classes are above the label, a large one may be missed.

    Raises:
        ValueError: There is no such class, or it is the predicted one; several samples, or a head of numbers.
    """
    support, z, logits, right = _error("smallest_repair", head, features, label)
    found = support.repairing(z, logits, right)
    if found is None:
        return None
    top = int(logits.argmax())
    shares = (support.weights[top] - support.weights[right]) * z[0]
    ranked = sorted(found[0], key=lambda feature: -float(shares[feature]))
    return Flip(tuple(ranked), top, right, right, found[1])


def _error(
    where: str, head: SparseHead, features: Tensor, label: int | str
) -> tuple[Support, Tensor, Tensor, int]:
    """One misclassified sample: support, z (1, d), logits (1, K) and its right class."""
    require_classes(where, head)
    right = head.class_number(label)
    support = Support.of(head)
    z = head.standardise(_one(where, features), where).double()
    logits = support.logits(z)
    if int(logits.argmax()) == right:
        fix = "Nothing is to be repaired; smallest_flip tells what holds the decision."
        raise ValueError(explain(where, "a misclassified sample", f"one of {head.name(right)}", fix))
    return support, z, logits, right


def _some_flips(support: Support, z: Tensor, rival: int | None) -> list[Flip | None]:
    logits = support.logits(z)
    top = logits.argmax(1)
    counts, rivals = support.turning(z, logits, rival)
    shares = (support.weights[top] - support.weights[rivals]) * z
    ranked = shares.argsort(dim=1, descending=True, stable=True)
    removed = torch.zeros_like(z).scatter(1, ranked, (torch.arange(z.shape[1]) < counts[:, None]).double())
    after = support.logits(z * (1 - removed)).argmax(1)
    return [
        Flip(tuple(ranked[i, :count].tolist()), int(top[i]), int(after[i]), int(rivals[i]))
        if count <= z.shape[1]
        else None
        for i, count in enumerate(counts.tolist())
    ]


def _best(logits: Tensor, but: int | None) -> int:
    """The class with the largest of logits (K,), one left out."""
    others = logits if but is None else logits.index_fill(0, torch.tensor(but), -torch.inf)
    return int(others.argmax())


def _one(where: str, features: Tensor) -> Tensor:
    """The features (1, d) of one sample, given as (d,) or (1, d)."""
    if isinstance(features, Tensor) and (features.dim() == 1 or features.shape[:-1] == (1,)):
        return features.reshape(1, -1)
    got = str(tuple(features.shape)) if isinstance(features, Tensor) else type(features).__name__
    raise ValueError(
        explain(
            where,
            "the features (d,) of one sample",
            got,
            "Pass one row: features[i], or features.values[i] of Features.",
        )
    )
