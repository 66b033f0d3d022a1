"""Tools that take features take `Features` too, with the labels that these carry, and name themselves in errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_heads import growing, samples, small_head, small_path
from torch import Tensor

from pyinterp.features import Features
from pyinterp.heads import (
    anec,
    contributions,
    exactly,
    explain_margin,
    fit_sparse_path,
    group_differences,
    ncc,
    random_features,
    refit,
    repairs,
    single_repairs,
    smallest_flip,
    smallest_flips,
    suspects,
    top_k_accuracy,
    top_samples,
)

HEAD, PATH = small_head(), small_path(growing([0, 6, 24], rows=4, width=7))
X = samples(0, 40).float()
Y = HEAD.without(6).predict(X)  # so that some removals repair something
SOME = torch.arange(40) < 20
Call = Callable[[Any, Any], Any]
LABELLED: dict[str, Call] = {
    "anec": lambda x, y: anec(PATH, x, y, (1, 3)),
    "exactly": lambda x, y: exactly(PATH, x, y, 2),
    "fit_sparse_path": lambda x, y: fit_sparse_path(x, y, n_lambdas=3, min_ratio=0.5, progress=False).weights,
    "refit": lambda x, y: refit(HEAD, x, y),
    "repairs": lambda x, y: repairs(HEAD, x, y),
    "SparseHead.accuracy": lambda x, y: HEAD.accuracy(x, y),
    "suspects": lambda x, y: suspects(HEAD, x, y, level=1.0),
    "top_k_accuracy": lambda x, y: top_k_accuracy(HEAD, x, y),
}
PLAIN: dict[str, Call] = {
    "contributions": lambda x, y: contributions(HEAD, x, 0, 1),
    "group_differences": lambda x, y: group_differences(HEAD, x, SOME, 1),
    "ncc": lambda x, y: ncc(HEAD, x),
    "random_features": lambda x, y: random_features(x, 3),
    "smallest_flips": lambda x, y: smallest_flips(HEAD, x),
    "SparseHead.logits": lambda x, y: HEAD.logits(x),
    "SparseHead.predict": lambda x, y: HEAD.predict(x),
    "SparseHead.standardise": lambda x, y: HEAD.standardise(x),
    "top_samples": lambda x, y: top_samples(x, 1),
}
ONE: dict[str, Call] = {
    "explain_margin": lambda x, y: explain_margin(HEAD, x),
    "single_repairs": lambda x, y: single_repairs(HEAD, x, 0),
    "smallest_flip": lambda x, y: smallest_flip(HEAD, x),
}


def plain(found: Any) -> Any:
    """What compares with ==."""
    found = getattr(found, "weights", found)
    return found.tolist() if isinstance(found, Tensor) else found


@pytest.mark.parametrize(("name", "call"), [*LABELLED.items(), *PLAIN.items()])
def test_features_with_labels_are_as_good_as_tensors(name: str, call: Call) -> None:
    wanted = plain(call(X, Y))
    assert wanted and plain(call(Features.of(X, Y), None)) == wanted
    assert plain(call(Features.of(X, 3 - Y), Y)) == wanted  # labels that are given go first


@pytest.mark.parametrize(("name", "call"), LABELLED.items())
@pytest.mark.parametrize("features", [X, Features.of(X)])
def test_missing_labels_are_asked_for_by_name(name: str, call: Call, features: Tensor | Features) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected labels, got none"):
        call(features, None)


@pytest.mark.parametrize(("name", "call"), [*LABELLED.items(), *PLAIN.items()])
def test_bad_features_are_refused_by_name(name: str, call: Call) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected a tensor of features.*, got str"):
        call("features", Y)
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got .*\\(7,\\)"):
        call(X[0], Y)


@pytest.mark.parametrize(
    "name", [*set(LABELLED) - {"fit_sparse_path"}, *set(PLAIN) - {"random_features", "top_samples"}]
)
def test_rows_of_nan_are_refused_by_name(name: str) -> None:
    broken = X.clone()
    broken[[1, 3], 2] = torch.nan
    with pytest.raises(ValueError, match=f"^{name}: expected finite features, .*1, 3"):
        {**LABELLED, **PLAIN}[name](broken, Y)


@pytest.mark.parametrize(("name", "call"), ONE.items())
def test_tools_for_one_sample_take_one_row(name: str, call: Call) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*got Features\. Pass one row: .*features\.values\[i\]"):
        call(Features.of(X), None)


def test_a_path_of_features_takes_validation_features_with_their_labels() -> None:
    common: dict[str, Any] = {"n_lambdas": 3, "min_ratio": 0.5, "progress": False}
    found = fit_sparse_path(Features.of(X, Y), validation=Features.of(X[:9], Y[:9]), **common)
    wanted = fit_sparse_path(X, Y, validation=(X[:9], Y[:9]), **common)
    assert torch.equal(found.validation_loss, wanted.validation_loss)
    with pytest.raises(ValueError, match="expected labels, got none"):
        fit_sparse_path(X, Y, validation=Features.of(X[:9]), **common)


def test_targets_of_features_are_refitted_to() -> None:
    targets = torch.randn(40, 4)
    head = replace(HEAD, family="gaussian")
    assert torch.equal(refit(head, Features.of(X, targets)).weights, refit(head, X, targets).weights)
