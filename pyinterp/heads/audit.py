"""What is wrong with a model, as far as its head tells: over many samples, classes, groups and features."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.given import values_of
from pyinterp.heads.head import SparseHead
from pyinterp.heads.labels import labels_for, require_classes
from pyinterp.heads.number import whole
from pyinterp.heads.removal import Support


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
        repaired: How many errors of this kind (samples of `label` that are taken for `predicted`) become right.
        errors: Of how many.
        samples: Which ones are repaired, rising.
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
        head: Multinomial; of a binary head there is one row of weights, so that nothing is shared.
        at_least: Leave out where one of the |weights| is below this.

    Raises:
        ValueError: A head of numbers.
    """
    require_classes("shared_features", head)
    found = []
    for feature in head.features_used.tolist():
        column = head.weights[:, feature]
        for sign in (1, -1):
            users = ((sign * column > 0) & (sign * column >= at_least)).nonzero()[:, 0].tolist()
            values = column.tolist()
            found += [
                SharedFeature(feature, (a, b), (values[a], values[b])) for a, b in combinations(users, 2)
            ]
    return sorted(found, key=lambda one: -min(map(abs, one.weights)))


def top_samples(
    features: Tensor | Features, feature: int, count: int = 10, lowest: bool = False
) -> list[int]:
    """The samples in which a feature is largest (or smallest), in that order.

    Args:
        features: (N, d), or what `extract_features` gave.
        feature: Its number.
        count: At most so many.
        lowest: The smallest instead.

    Raises:
        TypeError: No features.
        ValueError: There is no such feature, no sample, or a count below 1.
    """
    values = values_of("top_samples", features)
    if values.dim() != 2 or not len(values) or not 0 <= feature < values.shape[1]:
        got = f"{tuple(values.shape)} and {feature}"
        fix = "Pass a feature 0 to d - 1."
        raise ValueError(explain("top_samples", "features (N, d) and one of them", got, fix))
    if count < 1:
        raise ValueError(explain("top_samples", "a count of at least 1", count, "Pass another one."))
    return values[:, feature].argsort(dim=0, descending=not lowest, stable=True)[:count].tolist()


def repairs(head: SparseHead, features: Tensor | Features, labels: Tensor | None = None) -> list[Repair]:
    """Single features whose removal (z = 0) makes errors right, by kind of error, the most repaired first.

    Args:
        head: Multinomial or binary.
        features: (N, d), or what `extract_features` gave.
        labels: (N,); None takes those of the features.

    Raises:
        TypeError: Features or labels of a wrong type.
        ValueError: Shapes that don't fit, labels that are no classes of this head, or a head of numbers.
    """
    features, labels = labels_for("repairs", head, features, labels)
    support = Support.of(head)
    kinds: Counter[tuple[int, int]] = Counter()
    mended: dict[tuple[int, int, int], list[int]] = {}
    for rows, part in head.chunks("repairs", features):
        z, right = part.double(), labels[rows]
        logits = support.logits(z)
        predicted = logits.argmax(1)
        wrong = (predicted != right).nonzero()[:, 0]
        kinds.update(zip(right[wrong].tolist(), predicted[wrong].tolist(), strict=True))
        which, found, _ = support.repairs(z[wrong], logits[wrong], right[wrong])
        at = wrong[which]
        columns = (right[at].tolist(), predicted[at].tolist(), found.tolist(), (at + rows.start).tolist())
        for label, got, feature, sample in zip(*columns, strict=True):
            mended.setdefault((label, got, feature), []).append(sample)
    repaired = [
        Repair(feature, label, got, len(samples), kinds[label, got], tuple(sorted(samples)))
        for (label, got, feature), samples in mended.items()
    ]
    return sorted(repaired, key=lambda one: (-one.repaired, one.label, one.predicted, one.feature))


def group_differences(
    head: SparseHead, features: Tensor | Features, group: Tensor, class_: int | str
) -> list[GroupDifference]:
    """Which features speak more for a class in one group of samples than in the rest, the largest difference first.

    Args:
        head: Of any family; of a binary one class 1.
        features: (N, d), or what `extract_features` gave.
        group: (N,) bool, with at least two samples inside and outside.
        class_: Whose weights.

    Raises:
        TypeError: No features.
        ValueError: There is no such class, a group of another shape or type, or one that nearly all or none are in.
    """
    features = head.require_features("group_differences", features)
    if not isinstance(group, Tensor) or group.dtype != torch.bool or group.shape != features.shape[:1]:
        known = isinstance(group, Tensor)
        got = f"{group.dtype} {tuple(group.shape)}" if known else type(group).__name__
        fix = "Say for each sample whether it is in the group."
        raise ValueError(explain("group_differences", f"a bool tensor ({len(features)},)", got, fix))
    group = group.cpu()
    inner = int(group.sum())
    if min(inner, len(group) - inner) < 2:
        fix = "Pass a group that some samples are in and some are not."
        got = f"{inner} and {len(group) - inner}"
        raise ValueError(explain("group_differences", "two samples inside and outside", got, fix))
    row = head.weights[head.row_number("group_differences", class_)].double()
    used = row.nonzero()[:, 0]
    shares = torch.cat(
        [z[:, used].double() * row[used] for _, z in head.chunks("group_differences", features)]
    )
    inside, outside = shares[group], shares[~group]
    error = (inside.var(0) / len(inside) + outside.var(0) / len(outside)).sqrt()
    columns = (used.tolist(), inside.mean(0).tolist(), outside.mean(0).tolist(), error.tolist())
    found = [GroupDifference(*entry) for entry in zip(*columns, strict=True)]
    return sorted(found, key=lambda one: -abs(one.difference))


def top_k_accuracy(
    head: SparseHead,
    features: Tensor | Features,
    labels: Tensor | None = None,
    counts: Sequence[int] = (1, 2, 3, 5, 10, 20),
) -> dict[int, tuple[float, float]]:
    """How far a decision rests on its largest contributions: accuracy with the top k only, and without them.

    Of the features that the predicted class uses, the k with the largest |W_kj z_j| are kept alone, all others taking
    their average; or they take it, and all others are kept. In a binary head both classes use the features of its row.

    Args:
        head: Multinomial or binary; `head_of` gives the dense one to compare with.
        features: (N, d), or what `extract_features` gave.
        labels: (N,); None takes those of the features.
        counts: The k.

    Returns:
        k -> (accuracy with only them, accuracy without them).

    Raises:
        TypeError: Features or labels of a wrong type.
        ValueError: Shapes that don't fit, labels that are no classes of this head, a count below 1, a head of numbers.
    """
    features, labels = labels_for("top_k_accuracy", head, features, labels)
    known = [whole(count) for count in counts] if isinstance(counts, Iterable) else []
    ks = [count for count in known if count is not None and count >= 1]
    if not ks or len(ks) < len(known):
        fix = "Pass a list of whole numbers, such as [1, 5, 20]."
        raise ValueError(explain("top_k_accuracy", "counts of at least 1", reprlib.repr(counts), fix))
    weights, bias = head.rows
    ranking = head.weights.expand_as(weights)
    most = min(max(ks), int((ranking != 0).sum(1).max()))
    hits = {count: [0, 0] for count in ks}
    for rows, z in head.chunks("top_k_accuracy", features):
        right = labels[rows]
        all_of_them = torch.addmm(bias, z, weights.T)
        parts = z * ranking[all_of_them.argmax(1)]
        top = parts.abs().topk(most, dim=1).indices
        kept = z.gather(1, top) * (parts.gather(1, top) != 0)
        only = bias.expand_as(all_of_them).clone()
        for place in range(most + 1):
            for count in ks:
                if count == place or (place == most and count > most):
                    hits[count][0] += int((only.argmax(1) == right).sum())
                    hits[count][1] += int((all_of_them - only + bias).argmax(1).eq(right).sum())
            if place < most:
                only.addcmul_(kept[:, place, None], weights.T[top[:, place]])
    return {count: (only / len(features), rest / len(features)) for count, (only, rest) in hits.items()}
