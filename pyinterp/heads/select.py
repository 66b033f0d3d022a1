"""Choosing one head of a path."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from pyinterp.errors import explain
from pyinterp.heads.head import SparseHead
from pyinterp.heads.number import checked_number

if TYPE_CHECKING:
    from pyinterp.heads.sparse_path import SparsePath

BEST = ("accuracy", "loss")
ROUNDING = 1e-9  # accuracies are shares: what they differ by is one over the number of samples, or rounding


def choose(
    path: SparsePath,
    features_per_class: float | None,
    within: float | None,
    best: str | None,
    point: int | None,
) -> SparseHead:
    """See `SparsePath.select`."""
    rules = {"features_per_class": features_per_class, "within": within, "best": best, "point": point}
    given = [name for name, value in rules.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        fix = "For example path.select(features_per_class=20)."
        raise ValueError(explain("select", f"one of {', '.join(rules)}", got, fix))
    if point is not None:
        return head_at(path, _point(path, point))
    if features_per_class is not None:
        return head_at(path, _nearest(path, features_per_class))
    if best is not None and best not in BEST:
        raise ValueError(explain("select", "best='accuracy' or best='loss'", repr(best), "Pass one of them."))
    if not len(path.validation_loss):
        fix = "Fit the path with validation=0.1, or choose by features_per_class."
        raise ValueError(explain("select", "a path with validation samples", "none", fix))
    if best == "loss":
        return head_at(path, int(path.validation_loss.argmin()))
    accuracy = path.validation_accuracy
    if not len(accuracy):
        raise ValueError(explain("select", "classes", "numbers as labels", "Choose with best='loss'."))
    fix = "within=0.05 allows five points of accuracy less than the best head has."
    within = 0.0 if within is None else within
    within = checked_number("select", "within between 0 and 1", within, lambda x: 0 <= x <= 1, fix)
    good = accuracy >= accuracy.max() - within - ROUNDING
    fewest = torch.where(good, path.features_per_class, torch.inf)
    return head_at(path, int(fewest.argmin()))


def head_at(path: SparsePath, point: int) -> SparseHead:
    """The head of one point."""
    origin = {
        "point": point,
        "lambda": float(path.lambdas[point]),
        "alpha": path.alpha,
        "grouped": path.grouped,
        "kkt": float(path.kkt[point]),
        "converged": bool(path.converged[point]),
        "samples": path.samples,
    }
    for name in ("train_accuracy", "validation_accuracy", "validation_loss"):
        values = getattr(path, name)
        if len(values):
            origin[name] = float(values[point])
    return SparseHead(
        weights=path.weights[point].cpu().clone(),
        bias=path.biases[point].cpu().clone(),
        mean=path.mean,
        std=path.std,
        family=path.family,
        class_names=path.class_names,
        classifier_name=path.classifier_name,
        model_digest=path.model_digest,
        origin=origin,
        version=path.version,
    )


def _point(path: SparsePath, point: int) -> int:
    def right(place: float) -> bool:
        return place.is_integer() and -len(path) <= place < len(path)

    expected = f"a point 0 to {len(path) - 1}"
    return int(checked_number("select", expected, point, right, "Pass one of them.")) % len(path)


def _nearest(path: SparsePath, wanted: float) -> int:
    fix = "Pass the mean number of features that a class may use."
    wanted = checked_number("select", "features_per_class above 0", wanted, lambda x: x > 0, fix)
    used = path.features_per_class
    most = float(used.max())
    if most < wanted:
        expected = f"a path that reaches {wanted:g} features per class"
        if path.stopped != "grid":
            fix = "Fit the path further: a larger max_features_per_class, or the same file after an interruption."
            raise ValueError(explain("select", expected, f"{most:.1f}", fix))
        fix = "This is its densest head; a smaller min_ratio takes the path further."
        warnings.warn(explain("select", expected, f"{most:.1f}", fix), stacklevel=4)
    return int((used - wanted).abs().argmin())
