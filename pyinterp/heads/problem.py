"""What a user hands to `fit_sparse_path` and `refit`, checked once, before any work: one clear error each."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
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
from pyinterp.heads.number import checked_number
from pyinterp.models.zoo import usable_device

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
        fix = "Look at these samples; leave them out or mend the network or the data behind them."
        got = f"NaN or infinity in {len(bad)} rows ({named(bad)})"
        raise ValueError(explain(where, f"finite {name}", got, fix))


def named(numbers: list[int]) -> str:
    """The first of these numbers."""
    return ", ".join(map(str, numbers[:NAMED])) + (", ..." if len(numbers) > NAMED else "")


def check_numbers(
    alpha: float,
    n_lambdas: int,
    min_ratio: float,
    tolerance: float,
    max_passes: int,
    max_features_per_class: float | None,
) -> tuple[float, int, float, float, int, float | None]:
    """The same as plain numbers; ValueError for one that is none or out of range."""

    def checked(name: str, value: Any, words: str, right: Callable[[float], bool]) -> float:
        return checked_number(WHERE, f"{name} {words}", value, right, f"Pass another {name}.")

    def count(name: str, value: Any) -> int:
        return int(checked(name, value, "a whole number >= 1", lambda x: x.is_integer() and x >= 1))

    most = max_features_per_class
    return (
        checked("alpha", alpha, "between 0 and 1", lambda x: 0 <= x <= 1),
        count("n_lambdas", n_lambdas),
        checked("min_ratio", min_ratio, "above 0 and below 1", lambda x: 0 < x < 1),
        checked("tolerance", tolerance, "above 0", lambda x: 0 < x < math.inf),
        count("max_passes", max_passes),
        None if most is None else checked("max_features_per_class", most, "above 0", lambda x: x > 0),
    )


def check_grid(lambdas: Any) -> list[float]:
    """The user's lambdas as a list; ValueError if they don't fall."""
    try:
        grid = [float(value) for value in lambdas]
    except (TypeError, ValueError, RuntimeError):
        grid = []
    falls = all(a > b for a, b in pairwise(grid))
    if not grid or not falls or not all(0 < value < math.inf for value in grid):
        got = ", ".join(f"{value:g}" for value in grid[:NAMED]) or reprlib.repr(lambdas)
        fix = "Pass a list, sorted(lambdas, reverse=True); each start is the solution at the lambda above."
        raise ValueError(explain(WHERE, "lambdas above 0 in falling order", got, fix))
    return grid


def check_devices(devices: Any) -> list[torch.device]:
    """The user's devices; ValueError for one that can't be used, or no list."""
    if not isinstance(devices, Sequence) or isinstance(devices, str):
        fix = f"Pass [{str(devices)!r}]."
        raise ValueError(explain(WHERE, "a list of devices", reprlib.repr(devices), fix))
    return [usable_device(WHERE, device) for device in devices]


def _tensor(where: str, value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            fix = f"Pass {name}.to_dense()."
            raise TypeError(explain(where, f"a dense tensor of {name}", value.layout, fix))
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
    got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    fix = "Pass a tensor or array of numbers; for names of classes np.unique(names, return_inverse=True)[1]."
    raise TypeError(explain(where, f"a tensor of {name}", got, fix))


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
    _every_class(where, counts, "samples", "Number the classes that there are 0, 1, 2, ... without gaps.")


def _every_class(where: str, counts: Tensor, noun: str, fix: str) -> None:
    empty = (counts == 0).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(explain(where, f"{noun} of every class", f"none of class {named(empty)}", fix))


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
    fix = "Pass one weight >= 0 per sample."
    if weights.shape != labels.shape[:1]:
        raise ValueError(explain(where, f"{len(labels)} sample_weights", tuple(weights.shape), fix))
    bad = (~((weights >= 0) & weights.isfinite())).nonzero()[:, 0].tolist()
    if bad:
        got = f"others in {len(bad)} rows ({named(bad)})"
        raise ValueError(explain(where, "finite sample_weights >= 0", got, fix))
    if float(weights.sum()) == 0:
        raise ValueError(explain(where, "some weight above 0", "zeros", "Leave sample_weights out."))
    if family != "gaussian":
        classes = int(labels.max()) + 1
        sums = torch.zeros(classes).double().index_add_(0, labels, weights)
        fix = "Give a sample of each a weight above 0, or leave these classes out and number the others anew."
        _every_class(where, sums, "samples with a weight above 0", fix)
    return weights
