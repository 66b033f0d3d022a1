"""Refitted heads are the optimum on their support, as other solvers find it; exactly k features per class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from small_heads import ROWS, draws, growing, small_head, small_path
from torch import Tensor

from pyinterp.heads import SparseHead, exactly, fit_sparse_path, refit


def data(family: str, count: int = 80, width: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = draws(seed)
    x = torch.randn(count, width, generator=generator, dtype=torch.float64) * 2 + 1
    if family == "gaussian":
        return x, x[:, :2] - x[:, 3:5] + torch.randn(count, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, ROWS["multinomial"], generator=generator, dtype=torch.float64)
    labels = (x[:, :4] + 2 * noise).argmax(1)
    return x, labels % 2 if family == "binary" else labels


def by_scipy(
    head: SparseHead, x: Tensor, y: Tensor, ridge: float, weights: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, d) and biases of the optimum over the support, from losses alone (no gradients)."""
    z, support = head.standardise(x).numpy(), (head.weights != 0).numpy()
    w = np.ones(len(x)) if weights is None else weights.numpy()

    def unpack(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        full = np.zeros(support.shape)
        full[support] = packed[: support.sum()]
        return full, packed[support.sum() :]

    def loss(packed: np.ndarray) -> float:
        full, bias = unpack(packed)
        logits = z @ full.T + bias
        if head.family == "gaussian":
            losses = ((logits - y.numpy()) ** 2).sum(1) / 2
        else:
            logits = np.hstack([0 * logits, logits]) if head.family == "binary" else logits
            losses = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y.numpy()]
        return float((w * losses).mean() + ridge / 2 * (full**2).sum())

    start = np.zeros(support.sum() + len(support))
    found = minimize(
        loss,
        start,
        method="L-BFGS-B",
        options={"maxiter": 2000, "maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-9},
    )
    return unpack(found.x)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("family", ROWS)
def test_a_refit_is_the_optimum_on_the_support(family: str, weighted: bool) -> None:
    x, y = data(family)
    head, ridge = small_head(family=family, origin={"kkt": 1.0, "lambda": 0.5, "train_accuracy": 1.0}), 0.02
    w = torch.rand(len(x), generator=draws(3), dtype=torch.float64) * 2 if weighted else None
    found = refit(head, x, y, ridge=ridge, sample_weights=w)
    weights, bias = by_scipy(head, x, y, ridge, w)
    centred = 0.0
    if family == "multinomial":  # a constant on all biases changes nothing
        centred = float(found.bias.mean()) - bias.mean()
    np.testing.assert_allclose(found.weights, weights, atol=2e-4)
    np.testing.assert_allclose(found.bias, bias + centred, atol=2e-4)
    assert torch.equal(found.weights != 0, head.weights != 0)
    left = found.origin["refitted"]
    assert left["ridge"] == ridge and left["largest_gradient"] <= 1e-6
    assert found.origin["lambda"] == 0.5 and not {"kkt", "train_accuracy"} & set(found.origin)


def test_a_binary_refit_is_that_of_scikit_learn() -> None:
    (x, y), head = data("binary"), small_head(family="binary", used=0.7)
    used, ridge = head.features_used, 0.01
    found = refit(head, x, y, ridge=ridge)
    z = head.standardise(x)[:, used].numpy()
    other = LogisticRegression(C=1 / (ridge * len(x)), tol=1e-10, max_iter=1000).fit(z, y.numpy())
    np.testing.assert_allclose(found.weights[:, used], other.coef_, atol=1e-5)
    np.testing.assert_allclose(found.bias, other.intercept_, atol=1e-5)


def test_a_gaussian_refit_is_least_squares_per_target() -> None:
    (x, y), head = data("gaussian"), small_head(family="gaussian")
    found = refit(head, x, y, ridge=0)
    for k in range(2):
        used = head.weights[k].nonzero()[:, 0]
        z = torch.cat([head.standardise(x)[:, used], torch.ones(len(x), 1).double()], 1)
        solution = torch.linalg.lstsq(z, y[:, k : k + 1]).solution[:, 0]
        torch.testing.assert_close(found.weights[k, used], solution[:-1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.bias[k], solution[-1], rtol=1e-4, atol=1e-5)


def test_a_head_without_features_is_refitted_to_the_shares_of_classes() -> None:
    x, y = data("multinomial")
    head = small_head()
    found = refit(replace(head, weights=0 * head.weights), x, y)
    shares = torch.bincount(y).double() / len(y)
    torch.testing.assert_close(found.bias.softmax(0), shares, rtol=1e-5, atol=1e-6)


def test_float32_heads_stay_float32_and_features_of_no_use_are_not_read() -> None:
    x, y = data("multinomial")
    head = small_head(dtype=torch.float32).without([3, 5])
    found = refit(head, x.float(), y)
    assert found.weights.dtype == found.bias.dtype == torch.float32
    other = x.clone()
    other[:, [1, 3, 5]] = 9
    torch.testing.assert_close(refit(head, other.float(), y).weights, found.weights)


def test_classes_that_can_be_separated_need_a_ridge() -> None:
    x = torch.tensor([[-2.0], [-1], [1], [2]], dtype=torch.float64).repeat(1, 2)
    y = torch.tensor([0, 0, 1, 1])
    head = SparseHead(
        weights=torch.tensor([[1.0, 0]]), bias=torch.zeros(1), mean=torch.zeros(2).double(), std=torch.ones(2).double(),
        family="binary", class_names=(), classifier_name="", model_digest="", origin={}, version="",
    )  # fmt: skip
    assert refit(head, x, y).accuracy(x, y) == 1


def test_a_refit_that_ends_early_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("pyinterp.heads.refit"), "MOST_STEPS", 1)
    with pytest.warns(UserWarning, match="refit: expected an optimum, got a largest gradient of") as told:
        refit(small_head(), *data("multinomial"))
    assert told[0].filename == __file__


# ---- exactly k


def pruned_by_hand(weights: Tensor, count: int) -> list[list[int]]:
    """For each class its k largest features at the first point where it has k."""
    kept = []
    for k in range(weights.shape[1]):
        for point in [*range(len(weights)), len(weights) - 1]:
            row = weights[point, k]
            if int((row != 0).sum()) >= count:
                break
        ranked = sorted((j for j in range(len(row)) if row[j] != 0), key=lambda j: -abs(float(row[j])))
        kept.append(sorted(ranked[:count]))
    return kept


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_exactly_keeps_the_largest_k_of_the_first_point_that_has_them(count: int, seed: int) -> None:
    x, y = data("multinomial", seed=seed)
    path = small_path(growing([0, 4, 9, 14, 20, 28], rows=4, width=7, seed=seed))
    head = exactly(path, x, y, count, ridge=0.05)
    assert [row.nonzero()[:, 0].tolist() for row in head.weights] == pruned_by_hand(path.weights, count)
    assert (head.weights != 0).sum(1).tolist() == [count] * 4
    weights, _ = by_scipy(head, x, y, 0.05)
    np.testing.assert_allclose(head.weights, weights, atol=2e-4)
    assert head.origin["pruned_to"] == count and len(head.origin["points"]) == 4
    assert not {"point", "lambda", "kkt", "converged"} & set(head.origin)


@pytest.mark.parametrize("family", ROWS)
@pytest.mark.parametrize("grouped", [False, True])
def test_exactly_k_of_a_fitted_path(family: str, grouped: bool) -> None:
    x, y = data(family)
    path = fit_sparse_path(x, y, family=family, grouped=grouped, n_lambdas=10, min_ratio=0.01, tolerance=1e-3)
    for count in (1, 3):
        head = exactly(path, x, y, count)
        assert (head.weights != 0).sum(1).tolist() == [count] * len(head.weights)


def test_classes_that_never_have_k_keep_what_they_have() -> None:
    weights = growing([3, 8], rows=4, width=7)
    weights[:, 2] = 0
    weights[1, 2, 5] = 1
    x, y = data("multinomial")
    with pytest.warns(
        UserWarning, match=r"exactly: expected 2 features for every class, got fewer for class .*2"
    ) as told:
        head = exactly(small_path(weights), x, y, 2)
    assert head.weights[2].nonzero()[:, 0].tolist() == [5] and told[0].filename == __file__


# ---- bad input

X, Y = data("multinomial")
HEAD, PATH = small_head(), small_path(growing([4, 20], rows=4, width=7))
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a ridge below 0": (lambda: refit(HEAD, X, Y, ridge=-1), ValueError, "ridge of at least 0, got -1"),
    "a ridge of nan": (lambda: refit(HEAD, X, Y, ridge=float("nan")), ValueError, "at least 0, got nan"),
    "another width": (
        lambda: refit(HEAD, X[:, :5], Y),
        ValueError,
        "expected 7 features and 4 outputs, got 5 and 4",
    ),
    "fewer classes": (lambda: refit(HEAD, X, Y % 3), ValueError, "7 features and 4 outputs, got 7 and 3"),
    "fewer labels": (lambda: refit(HEAD, X, Y[:9]), ValueError, "80 labels, got"),
    "float labels": (lambda: refit(HEAD, X, Y.float()), TypeError, "whole numbers"),
    "weights below 0": (
        lambda: refit(HEAD, X, Y, sample_weights=-torch.ones(80)),
        ValueError,
        "weights >= 0",
    ),
    "k of 0": (
        lambda: exactly(PATH, X, Y, 0),
        ValueError,
        "exactly: expected 1 to 7 features per class, got 0",
    ),
    "k of 8": (lambda: exactly(PATH, X, Y, 8), ValueError, "1 to 7 features per class, got 8"),
    "k of 1.5": (lambda: exactly(PATH, X, Y, 1.5), ValueError, "1 to 7 features per class, got 1.5"),  # type: ignore[arg-type]
    "another width of the path": (lambda: exactly(PATH, X[:, :5], Y, 1), ValueError, "got 5 and 4"),
}


@pytest.mark.filterwarnings("ignore:exactly")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, kind, said = BAD[case]
    with pytest.raises(kind, match=said):
        call()
