"""What a user hands to `fit_sparse_path` and `refit`, checked once, before any work: one clear error each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyinterp.elastic.families import FAMILIES
from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.given import labels_of

WHERE = "fit_sparse_path"
CHECKED_ROWS = 1 << 14
NAMED = 5


@dataclass(frozen=True)
class Problem:
    """Features (N, d), labels (N,) int64 or (N, m) float64, weights (N,) float64 or None."""

    features: Tensor
    labels: Tensor
    weights: Tensor | None
    family: str


def check_problem(
    where: str, features: Any, labels: Any, weights: Any, family: str, complete: bool = True
) -> Problem:
    """Tensors of the right types and shapes; ``complete``: every class must have samples.

    Labels of None are those of `Features`; ``where`` names who asks.

    Raises:
        TypeError: A wrong type.
        ValueError: Shapes that don't fit; NaN; labels or weights out of range; a class without samples.
    """
    if family not in FAMILIES:
        fix = f"Choose one of {', '.join(FAMILIES)}."
        raise ValueError(explain(where, "a family", repr(family), fix))
    labels = labels_of(where, features, labels)
    features = _tensor(where, features.values if isinstance(features, Features) else features, "features")
    if features.dim() != 2 or not features.is_floating_point() or not features.numel():
        got = f"{features.dtype} {tuple(features.shape)}"
        fix = "Pass one row of numbers per sample, for example from extract_features."
        raise ValueError(explain(where, "float features (samples, features)", got, fix))
    check_finite(where, features, "features")
    labels = _tensor(where, labels, "labels")
    if family == "gaussian":
        labels = _targets(where, features, labels)
    else:
        labels = _classes(where, features, labels, family)
        if complete:
            _require_all(where, labels, family)
    return Problem(features, labels, _weights(where, weights, labels, family), family)


def check_finite(where: str, values: Tensor, name: str) -> None:
    """Refuse NaN and infinity, and name the first rows that hold some; chunk by chunk."""
    bad: list[int] = []
    for start in range(0, len(values), CHECKED_ROWS):
        wrong = ~values[start : start + CHECKED_ROWS].isfinite().flatten(1).all(1)
        bad += (wrong.nonzero()[:, 0] + start).tolist()
    if bad:
        rows = ", ".join(map(str, bad[:NAMED])) + (", ..." if len(bad) > NAMED else "")
        fix = "Look at these samples; leave them out or mend the network or the data behind them."
        raise ValueError(
            explain(where, f"finite {name}", f"NaN or infinity in {len(bad)} rows ({rows})", fix)
        )


def check_numbers(
    alpha: float,
    n_lambdas: int,
    min_ratio: float,
    tolerance: float,
    max_passes: int,
    max_features_per_class: float | None,
) -> None:
    """Raise ValueError for a number out of range."""
    most = math.inf if max_features_per_class is None else max_features_per_class
    for name, value, right, words in (
        ("alpha", alpha, 0 <= alpha <= 1, "between 0 and 1"),
        ("n_lambdas", n_lambdas, int(n_lambdas) == n_lambdas >= 1, "a whole number >= 1"),
        ("min_ratio", min_ratio, 0 < min_ratio < 1, "above 0 and below 1"),
        ("tolerance", tolerance, 0 < tolerance < math.inf, "above 0"),
        ("max_passes", max_passes, int(max_passes) == max_passes >= 1, "a whole number >= 1"),
        ("max_features_per_class", most, most > 0, "above 0"),
    ):
        if not right:
            raise ValueError(explain(WHERE, f"{name} {words}", value, f"Pass another {name}."))


def check_grid(lambdas: Any) -> list[float]:
    """The user's lambdas as a list; ValueError if they don't fall."""
    grid = [float(value) for value in lambdas]
    falls = all(a > b for a, b in pairwise(grid))
    if not grid or not falls or not all(0 < value < math.inf for value in grid):
        got = ", ".join(f"{value:g}" for value in grid[:NAMED]) or "none"
        fix = "Sort them: sorted(lambdas, reverse=True); each start is the solution at the lambda above."
        raise ValueError(explain(WHERE, "lambdas above 0 in falling order", got, fix))
    return grid


def _tensor(where: str, value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        if not value.flags.writeable or not value.flags.c_contiguous:
            value = np.array(value)
        return torch.from_numpy(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            pass
    fix = "Pass a tensor or a NumPy array; name strings as classes and pass their numbers."
    raise TypeError(explain(where, f"a tensor of {name}", type(value).__name__, fix))


def _same_length(where: str, features: Tensor, other: Tensor, name: str) -> None:
    if not other.dim() or len(other) != len(features):
        fix = "Pass one entry per row of features."
        raise ValueError(explain(where, f"{len(features)} {name}", tuple(other.shape), fix))


def _classes(where: str, features: Tensor, labels: Tensor, family: str) -> Tensor:
    _same_length(where, features, labels, "labels")
    if labels.is_floating_point() or labels.is_complex() or labels.dim() != 1:
        got = f"{labels.dtype} {tuple(labels.shape)}"
        fix = 'Pass class numbers, for example labels.long(); for regression family="gaussian".'
        raise TypeError(explain(where, "whole numbers (samples,) as labels", got, fix))
    labels = labels.long().cpu()
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (family == "binary" and high > 1):
        wanted = "labels 0 and 1" if family == "binary" else "labels from 0 on"
        raise ValueError(explain(where, wanted, f"{low} to {high}", "Number the classes from 0 on."))
    return labels


def _require_all(where: str, labels: Tensor, family: str) -> None:
    classes = 2 if family == "binary" else int(labels.max()) + 1
    if classes > len(labels):
        fix = "Number the classes 0, 1, 2, ... without gaps, or bring more samples."
        raise ValueError(
            explain(where, f"at least one sample for each of {classes} classes", f"{len(labels)}", fix)
        )
    counts = torch.bincount(labels, minlength=classes)
    if int((counts > 0).sum()) < 2:
        fix = "A head tells classes apart: bring samples of at least two."
        raise ValueError(explain(where, "at least two classes", "one", fix))
    _every_class(where, counts, "samples")


def _every_class(where: str, counts: Tensor, noun: str) -> None:
    empty = (counts == 0).nonzero()[:, 0].tolist()
    if empty:
        names = ", ".join(map(str, empty[:NAMED])) + (", ..." if len(empty) > NAMED else "")
        fix = "Number the classes that there are 0, 1, 2, ... without gaps."
        raise ValueError(explain(where, f"{noun} of every class", f"none of class {names}", fix))


def _targets(where: str, features: Tensor, targets: Tensor) -> Tensor:
    _same_length(where, features, targets, "targets")
    if targets.is_complex() or targets.dim() > 2:
        got = f"{targets.dtype} {tuple(targets.shape)}"
        fix = "Pass one number, or one row of numbers, per sample."
        raise TypeError(explain(where, "targets (samples,) or (samples, targets)", got, fix))
    targets = targets.double().cpu()
    targets = targets[:, None] if targets.dim() == 1 else targets
    check_finite(where, targets, "targets")
    return targets


def _weights(where: str, weights: Any, labels: Tensor, family: str) -> Tensor | None:
    if weights is None:
        return None
    weights = _tensor(where, weights, "sample_weights").double().cpu()
    if weights.shape != labels.shape[:1] or not bool(((weights >= 0) & weights.isfinite()).all()):
        fix = "Pass one weight >= 0 per sample."
        raise ValueError(
            explain(where, f"{len(labels)} finite sample_weights >= 0", tuple(weights.shape), fix)
        )
    if float(weights.sum()) == 0:
        raise ValueError(explain(where, "some weight above 0", "zeros", "Leave sample_weights out."))
    if family != "gaussian":
        classes = int(labels.max()) + 1
        _every_class(where, torch.zeros(classes).double().index_add_(0, labels, weights), "weighted samples")
    return weights
