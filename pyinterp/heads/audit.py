"""What is wrong with a model, as far as its head tells: over many samples, classes, groups and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.heads.head import SparseHead

CHUNK = 1 << 12


@dataclass(frozen=True)
class SharedFeature:
    """A feature that two classes both use with the same sign: what they are told apart by is not it.

    Attributes:
        feature: Its number.
        classes: The two.
        weights: For the two.
    """

    feature: int
    classes: tuple[int, int]
    weights: tuple[float, float]


@dataclass(frozen=True)
class Repair:
    """Errors that the removal of one feature repairs.

    Attributes:
        feature: Its number.
        label: The right class.
        predicted: The class that was predicted.
        repaired: How many errors of this kind become right.
        errors: Of how many.
        samples: Which ones are repaired.
    """

    feature: int
    label: int
    predicted: int
    repaired: int
    errors: int
    samples: tuple[int, ...]


@dataclass(frozen=True)
class GroupDifference:
    """How much more one feature speaks for a class in one group than in the rest.

    Attributes:
        feature: Its number.
        inside: Mean of W_kj z_j over the group.
        outside: Mean over the others.
        error: Standard error of the difference (Welch).
    """

    feature: int
    inside: float
    outside: float
    error: float

    @property
    def difference(self) -> float:
        """inside - outside, in logits."""
        return self.inside - self.outside


def shared_features(head: SparseHead, at_least: float = 0.0) -> list[SharedFeature]:
    """Features that two classes use with the same sign, the largest smaller |weight| first.

    Args:
        head: Multinomial.
        at_least: Leave out where one of the |weights| is not above this.
    """
    found = []
    for feature in head.features_used.tolist():
        column = head.weights[:, feature]
        for sign in (1, -1):
            users = (sign * column > at_least).nonzero()[:, 0].tolist()
            for i, a in enumerate(users):
                for b in users[i + 1 :]:
                    found.append(SharedFeature(feature, (a, b), (float(column[a]), float(column[b]))))
    return sorted(found, key=lambda one: -min(map(abs, one.weights)))


def top_samples(features: Tensor, feature: int, count: int = 10, lowest: bool = False) -> list[int]:
    """The samples in which a feature is largest (or smallest), in that order.

    Args:
        features: (N, d).
        feature: Its number.
        count: At most so many.
        lowest: The smallest instead.
    """
    return features[:, feature].argsort(dim=0, descending=not lowest, stable=True)[:count].tolist()


def repairs(head: SparseHead, features: Tensor, labels: Tensor) -> list[Repair]:
    """Single features whose removal (z = 0) makes errors right, by kind of error, the most repaired first.

    Args:
        head: Multinomial or binary.
        features: (N, d).
        labels: (N,).
    """
    weights, _ = head.rows
    labels = labels.cpu()
    predicted = head.predict(features)
    wrong = (predicted != labels).nonzero()[:, 0]
    used = head.features_used
    kinds: dict[tuple[int, int], int] = {}
    mended: dict[tuple[int, int, int], list[int]] = {}
    for sample in wrong.tolist():
        row, right = features[sample : sample + 1], int(labels[sample])
        kind = (right, int(predicted[sample]))
        kinds[kind] = kinds.get(kind, 0) + 1
        without = head.logits(row) - (weights[:, used] * head.standardise(row)[0, used]).T
        for j in used[without.argmax(1) == right].tolist():
            mended.setdefault((*kind, j), []).append(sample)
    found = [
        Repair(j, right, got, len(samples), kinds[right, got], tuple(samples))
        for (right, got, j), samples in mended.items()
    ]
    return sorted(found, key=lambda one: (-one.repaired, one.label, one.predicted, one.feature))


def group_differences(
    head: SparseHead, features: Tensor, group: Tensor, class_: int | str
) -> list[GroupDifference]:
    """Which features speak more for a class in one group of samples than in the rest, the largest difference first.

    Args:
        head: Multinomial or binary.
        features: (N, d).
        group: (N,) bool, with at least two samples inside and outside.
        class_: Whose weights.
    """
    group = group.cpu()
    if group.dtype != torch.bool or group.shape != features.shape[:1]:
        got = f"{group.dtype} {tuple(group.shape)}"
        fix = "Say for each sample whether it is in the group."
        raise ValueError(explain("group_differences", f"a bool group ({len(features)},)", got, fix))
    if min(int(group.sum()), int((~group).sum())) < 2:
        fix = "Pass a group that some samples are in and some are not."
        raise ValueError(
            explain("group_differences", "two samples inside and outside", int(group.sum()), fix)
        )
    weights, _ = head.rows
    row = weights[head.class_number(class_)]
    used = row.nonzero()[:, 0]
    shares = (head.standardise(features)[:, used] * row[used]).double()
    inside, outside = shares[group], shares[~group]
    error = (inside.var(0) / len(inside) + outside.var(0) / len(outside)).sqrt()
    columns = (used.tolist(), inside.mean(0).tolist(), outside.mean(0).tolist(), error.tolist())
    found = [GroupDifference(*entry) for entry in zip(*columns, strict=True)]
    return sorted(found, key=lambda one: -abs(one.difference))


def top_k_accuracy(
    head: SparseHead, features: Tensor, labels: Tensor, counts: Sequence[int] = (1, 2, 3, 5, 10, 20)
) -> dict[int, tuple[float, float]]:
    """How far a decision rests on its largest contributions: accuracy with the top k only, and without them.

    The k features with the largest |W_kj z_j| for the predicted class are kept alone, or set to their average.

    Args:
        head: Multinomial or binary; `head_of` gives the dense one to compare with.
        features: (N, d).
        labels: (N,).
        counts: The k.

    Returns:
        k -> (accuracy with only them, accuracy without them).
    """
    weights, bias = head.rows
    hits = {count: [0, 0] for count in counts}
    for start in range(0, len(features), CHUNK):
        z, right = head.standardise(features[start : start + CHUNK]), labels[start : start + CHUNK].cpu()
        predicted = torch.addmm(bias, z, weights.T).argmax(1)
        order = (z * weights[predicted]).abs().argsort(dim=1, descending=True, stable=True)
        for count in counts:
            top = torch.zeros_like(z, dtype=torch.bool).scatter(1, order[:, :count], True)
            for part, kept in enumerate((z * top, z * ~top)):
                answer = torch.addmm(bias, kept, weights.T).argmax(1)
                hits[count][part] += int((answer == right).sum())
    return {count: (only / len(features), rest / len(features)) for count, (only, rest) in hits.items()}
