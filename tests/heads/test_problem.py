"""What `fit_sparse_path` refuses, with one clear error each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from samples import classes

from pyinterp.features import Features
from pyinterp.heads import fit_sparse_path

X, Y = classes(count=60, width=4, outputs=3)


def broken(rows: list[int], value: float) -> torch.Tensor:
    features = X.clone()
    features[rows, 1] = value
    return features


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"labels": None}, ValueError, r"expected labels, got none"),
    ({"labels": torch.zeros(60, dtype=torch.int64)}, ValueError, "at least two classes, got one"),
    ({"labels": torch.where(Y == 1, 3, Y)}, ValueError, "samples of every class, got none of class 1"),
    ({"labels": Y - 1}, ValueError, "labels from 0 on, got -1 to 1"),
    ({"labels": Y.double()}, TypeError, r"whole numbers .* got torch.float64 .*\.long\(\)"),
    ({"labels": Y[:-1]}, ValueError, r"60 labels, got \(59,\)"),
    ({"labels": torch.nn.functional.one_hot(Y)}, TypeError, "whole numbers"),
    ({"labels": ["cat"] * 60}, TypeError, "a tensor of labels, got list"),
    ({"labels": np.array(["a", "b"] * 30)}, TypeError, r"labels, got an array of <U1\. .* np\.unique\(names"),
    (
        {"features": X.to_sparse()},
        TypeError,
        r"a dense tensor of features, got torch.sparse_coo\. .*to_dense",
    ),
    (
        {"features": X[:3], "labels": torch.tensor([0, 7, 9])},
        ValueError,
        "at least one sample for each of 10 classes",
    ),
    ({"features": broken([3, 7], torch.nan)}, ValueError, r"NaN or infinity in 2 rows \(3, 7\)"),
    ({"features": broken(list(range(9)), torch.inf)}, ValueError, r"in 9 rows \(0, 1, 2, 3, 4, \.\.\.\)"),
    ({"features": X[0]}, ValueError, r"float features \(samples, features\), got torch.float64 \(4,\)"),
    ({"features": X.long()}, ValueError, "float features"),
    ({"features": X[:, :0]}, ValueError, "float features"),
    ({"features": "images"}, TypeError, "a tensor of features, got str"),
    ({"lambdas": [0.1, 0.2]}, ValueError, "lambdas above 0 in falling order, got 0.1, 0.2"),
    ({"lambdas": [0.1, 0.1]}, ValueError, "falling order"),
    ({"lambdas": [0.1, 0.0]}, ValueError, "falling order"),
    ({"lambdas": []}, ValueError, r"falling order, got \[\]\. Pass a list"),
    ({"lambdas": 0.1}, ValueError, r"falling order, got 0\.1\. Pass a list"),
    ({"lambdas": ["a"]}, ValueError, r"falling order, got \['a'\]"),
    ({"alpha": 1.1}, ValueError, "alpha between 0 and 1, got 1.1"),
    ({"alpha": "a"}, ValueError, "alpha between 0 and 1, got 'a'"),
    ({"n_lambdas": 0}, ValueError, "n_lambdas"),
    ({"n_lambdas": None}, ValueError, "n_lambdas a whole number >= 1, got None"),
    ({"n_lambdas": 2.5}, ValueError, "n_lambdas a whole number >= 1, got 2.5"),
    ({"min_ratio": 1.0}, ValueError, "min_ratio"),
    ({"tolerance": 0.0}, ValueError, "tolerance above 0"),
    ({"max_passes": 0}, ValueError, "max_passes"),
    ({"max_passes": float("inf")}, ValueError, "max_passes a whole number >= 1, got inf"),
    ({"devices": "cpu"}, ValueError, r"a list of devices, got 'cpu'\. Pass \['cpu'\]"),
    ({"devices": torch.device("cpu")}, ValueError, r"a list of devices, .* Pass \['cpu'\]"),
    (
        {"devices": ["foo"]},
        ValueError,
        "fit_sparse_path: expected a device that this torch can use, got 'foo'",
    ),
    ({"devices": ["cuda:77"]}, ValueError, "a device that this torch can use, got 'cuda:77'"),
    ({"devices": [None]}, ValueError, "a device that this torch can use, got 'None'"),
    ({"max_features_per_class": 0}, ValueError, "max_features_per_class"),
    (
        {"family": "poisson"},
        ValueError,
        "a family, got 'poisson'. Choose one of multinomial, binary, gaussian",
    ),
    ({"family": "binary"}, ValueError, "labels 0 and 1, got 0 to 2"),
    ({"family": "binary", "labels": torch.zeros(60, dtype=torch.int64)}, ValueError, "at least two classes"),
    ({"family": "gaussian", "labels": torch.full((60,), torch.nan)}, ValueError, "finite targets"),
    ({"solver": "newton"}, ValueError, "a solver, got 'newton'"),
    ({"sample_weights": torch.ones(59)}, ValueError, r"60 sample_weights, got \(59,\)"),
    (
        {"sample_weights": torch.where(torch.arange(60) > 52, -1.0, 1.0)},
        ValueError,
        r"finite sample_weights >= 0, got others in 7 rows \(53, 54, 55, 56, 57, \.\.\.\)",
    ),
    ({"sample_weights": torch.tensor([1.0, torch.nan] + 58 * [1.0])}, ValueError, r"in 1 rows \(1\)"),
    (
        {"sample_weights": (Y != 2).double()},
        ValueError,
        "samples with a weight above 0 of every class, got none of class 2. Give a sample of each a weight",
    ),
    ({"validation": 0.0}, ValueError, "a share of validation samples"),
    ({"validation": 0.001}, ValueError, "validation samples, got none"),
    (
        {"validation": Features.of(X.float())},
        ValueError,
        "fit_sparse_path, validation: expected labels, got none",
    ),
    ({"validation": X}, TypeError, "validation as a share or a pair"),
    ({"validation": (X[:, :3], Y)}, ValueError, "validation samples of 4 features, got 3"),
    ({"validation": (X, Y + 1)}, ValueError, "validation labels up to 2, got 3"),
    ({"features": torch.ones(60, 4)}, ValueError, "a feature that differs between samples"),
    ({"progress": 3}, TypeError, "progress"),
]


@pytest.mark.parametrize(("wrong", "error", "words"), REFUSED, ids=range(len(REFUSED)))
def test_one_clear_error(wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    options = {"features": X, "labels": Y, **wrong}
    features, labels = options.pop("features"), options.pop("labels")
    with pytest.raises(error, match=words) as told:
        fit_sparse_path(features, labels, **options)
    assert "expected" in str(told.value) and str(told.value).endswith(".")


def test_arrays_lists_and_bools_are_welcome() -> None:
    options: dict[str, Any] = {"n_lambdas": 3, "min_ratio": 0.1}
    plain = fit_sparse_path(X, Y, **options)
    for features, labels in (
        (X.numpy(), Y.numpy()),
        (X.tolist(), Y.tolist()),
        (X.numpy(), Y.numpy().astype(np.int8)),
    ):
        other = fit_sparse_path(features, labels, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(other.weights.double(), plain.weights, rtol=0, atol=1e-3)
    floats = {"n_lambdas": 3.0, "min_ratio": np.float32(0.1), "max_passes": np.float64(2000)}
    assert len(fit_sparse_path(X, Y, **floats)) == 3  # type: ignore[arg-type]
    assert fit_sparse_path(X, Y > 0, family="binary", **options).weights.shape == (3, 1, 4)
