"""SparseHeadClassifier is an estimator of scikit-learn like any other, and its optimum is scikit-learn's."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pyinterp.heads import SparseHeadClassifier, fit_sparse_path


def data(classes: int, count: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of very different means and scales."""
    x, y = make_classification(
        count,
        8,
        n_informative=5,
        n_redundant=1,
        n_classes=classes,
        class_sep=0.7,
        flip_y=0.2,
        random_state=seed,
    )
    return x * np.geomspace(0.1, 50, 8) + np.arange(8), y


@parametrize_with_checks([SparseHeadClassifier(), SparseHeadClassifier(strength=0.05)])
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_optimum_is_that_of_logistic_regression(alpha: float, classes: int, weighted: bool) -> None:
    x, y = data(classes)
    x = StandardScaler().fit_transform(x)
    weights, strength = None, 0.02
    if weighted:
        weights = np.random.default_rng(0).integers(0, 4, len(y))
        kept = np.repeat(np.arange(len(y)), weights)
        x, y, weights = x - x[kept].mean(0), y, weights.astype(float)
        x /= x[kept].std(0)
    total = len(y) if weights is None else weights.sum()
    ours = SparseHeadClassifier(strength=strength, alpha=alpha, tolerance=1e-8, max_passes=20000)
    ours.fit(x, y, sample_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = LogisticRegression(
            C=1 / (strength * total), l1_ratio=alpha, solver="saga", tol=1e-9, max_iter=20000, random_state=0
        ).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    shift = ours.intercept_ - theirs.intercept_  # of all classes together it changes nothing
    np.testing.assert_allclose(shift, shift.mean() if classes > 2 else 0, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)
    assert ours.coef_.any() and (ours.coef_ == 0).any() == (theirs.coef_ == 0).any()


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coefficients_are_in_units_of_the_given_features(classes: int, dtype: Any) -> None:
    x, y = data(classes)
    x = x.astype(dtype)
    names = np.array(["ant", "bee", "cat", "dog"])[y]
    model = SparseHeadClassifier(features_per_class=3, n_lambdas=12, min_ratio=0.05).fit(x, names)
    rows = 1 if classes == 2 else classes
    assert model.coef_.shape == (rows, 8) and model.intercept_.shape == (rows,) and model.coef_.dtype == dtype
    logits = x @ model.coef_.T + model.intercept_
    decision = model.decision_function(x)
    near = 1e-3 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(decision, logits[:, 0] if classes == 2 else logits, atol=near)
    both = np.hstack([0 * logits, logits]) if classes == 2 else logits
    odds = np.exp(both - both.max(1, keepdims=True))
    np.testing.assert_allclose(model.predict_proba(x), odds / odds.sum(1, keepdims=True), atol=near)
    assert model.classes_.tolist() == sorted(set(names))
    assert model.predict(x).tolist() == model.classes_[both.argmax(1)].tolist()
    assert model.score(x, names) == np.mean(model.predict(x) == names) > 0.5
    assert model.head_.class_names == tuple(model.classes_) and model.n_iter_ == int(model.path_.passes.sum())


def test_the_choice_is_that_of_the_path() -> None:
    x, y = data(3)
    options = {"n_lambdas": 12, "min_ratio": 0.02, "alpha": 0.9, "tolerance": 1e-6}
    path = fit_sparse_path(torch.from_numpy(x), torch.from_numpy(y), **options)
    model = SparseHeadClassifier(features_per_class=2.5, **options).fit(x, y)
    assert torch.equal(model.head_.weights, path.select(features_per_class=2.5).weights)
    assert len(model.path_) < len(path)
    usual = SparseHeadClassifier(**options).fit(x, y)  # 20 of 8 features: as many as there are
    assert torch.equal(usual.head_.weights, path.weights[path.features_per_class.argmax()])
    within = SparseHeadClassifier(within=0.1, validation_fraction=0.3, random_state=1, **options).fit(x, y)
    good = within.path_.validation_accuracy >= within.path_.validation_accuracy.max() - 0.1 - 1e-9
    fewest = within.path_.features_per_class[good].min()
    assert within.head_.features_per_class == fewest and within.path_.validation_samples == round(
        0.3 * len(y)
    )
    again = SparseHeadClassifier(within=0.1, validation_fraction=0.3, random_state=1, **options).fit(x, y)
    assert np.array_equal(again.coef_, within.coef_)
    grouped = SparseHeadClassifier(grouped=True, **options).fit(x, y)
    assert set((grouped.path_.weights != 0).sum(1).flatten().tolist()) == {0, 3}


def test_a_sample_of_weight_0_is_none() -> None:
    x, y = data(3)
    weights = np.ones(90)
    weights[y == 1] = 0
    model = SparseHeadClassifier(strength=0.05).fit(x, y, sample_weight=weights)
    other = SparseHeadClassifier(strength=0.05).fit(x[y != 1], y[y != 1])
    assert model.classes_.tolist() == [0, 2] and np.allclose(model.coef_, other.coef_)


def test_in_a_pipeline_and_a_grid_search() -> None:
    x, y = data(3)
    pipeline = make_pipeline(FunctionTransformer(np.tanh), SparseHeadClassifier(n_lambdas=10, min_ratio=0.05))
    grid = {"sparseheadclassifier__features_per_class": [1, 2, 4], "sparseheadclassifier__alpha": [0.5, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(x, y)
    assert search.predict(x).shape == y.shape and search.best_score_ > 1 / 3
    assert set(search.best_params_) == set(grid)


def test_a_fitted_estimator_survives_pickling() -> None:
    x, y = data(2)
    model = SparseHeadClassifier(strength=0.05).fit(x, y)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).decision_function(x), model.decision_function(x))


X, Y = data(3)
BAD = {
    "two rules": ({"within": 0.1, "strength": 1.0}, Y, "expected at most one of .*, got within and strength"),
    "one class": ({}, 0 * Y, "samples of at least two classes, got one class"),
    "numbers as labels": ({}, X[:, 0], "continuous"),
    "alpha 2": ({"alpha": 2}, Y, "alpha between 0 and 1, got 2"),
    "a strength below 0": ({"strength": -1.0}, Y, "lambdas above 0"),
    "an unknown solver": ({"solver": "adam"}, Y, "'adam'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    options, labels, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        SparseHeadClassifier(**options).fit(X, labels)


def test_an_unfitted_estimator_says_so() -> None:
    with pytest.raises(NotFittedError):
        SparseHeadClassifier().predict(X)


def test_scikit_learn_is_imported_when_the_estimator_is_asked_for() -> None:
    script = (
        "import sys; import pyinterp.heads; assert 'sklearn' not in sys.modules; sys.modules['sklearn'] = None\n"
        "try: pyinterp.heads.SparseHeadClassifier\n"
        "except ImportError as error: print(error)\n"
        "try: pyinterp.heads.Other\n"
        "except AttributeError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert "the package sklearn, which SparseHeadClassifier needs" in said.stdout, said.stderr
    assert "module 'pyinterp.heads' has no attribute 'Other'" in said.stdout
