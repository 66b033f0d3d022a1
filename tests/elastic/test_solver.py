"""One point of a path: against scikit-learn, closed forms, and the optimality conditions from the definition."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from samples import classes, objective, standardised
from sklearn.linear_model import ElasticNet, LogisticRegression, MultiTaskElasticNet
from torch import Tensor

from pyinterp.heads import SparsePath, fit_sparse_path

SOLVERS = ("gram", "fista")


def fit(*args: Tensor, **options: object) -> SparsePath:
    return fit_sparse_path(*args, **{"tolerance": 1e-8, "max_passes": 20000, **options})  # type: ignore[arg-type]


def targets(features: Tensor, outputs: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(features.shape[1], outputs, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(features), outputs, generator=generator, dtype=torch.float64)
    return features @ weights + 20 * noise + 7


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("alpha", [0.99, 0.5])
def test_multinomial_equals_scikit_learn(solver: str, alpha: float) -> None:
    features, labels = classes()
    path = fit(features, labels, alpha=alpha, lambdas=[0.05, 0.01], solver=solver)
    for point, strength in enumerate([0.05, 0.01]):
        theirs = LogisticRegression(
            l1_ratio=alpha, C=1 / (strength * len(labels)), solver="saga", tol=1e-10, max_iter=20000
        ).fit(standardised(features).numpy(), labels.numpy())
        torch.testing.assert_close(path.weights[point], torch.tensor(theirs.coef_), rtol=0, atol=1e-6)
        wanted = torch.tensor(theirs.intercept_) - torch.tensor(theirs.intercept_).mean()
        torch.testing.assert_close(path.biases[point], wanted, rtol=0, atol=1e-6)
        assert torch.equal(path.weights[point] == 0, torch.tensor(theirs.coef_) == 0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_binary_equals_scikit_learn(solver: str) -> None:
    features, labels = classes(outputs=2)
    path = fit(features, labels, alpha=0.7, lambdas=[0.02], family="binary", solver=solver)
    theirs = LogisticRegression(
        l1_ratio=0.7, C=1 / (0.02 * len(labels)), solver="saga", tol=1e-10, max_iter=20000
    )
    theirs.fit(standardised(features).numpy(), labels.numpy())
    torch.testing.assert_close(path.weights[0], torch.tensor(theirs.coef_), rtol=0, atol=1e-6)
    torch.testing.assert_close(path.biases[0], torch.tensor(theirs.intercept_), rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_gaussian_equals_scikit_learn(solver: str) -> None:
    features, _ = classes()
    wanted = targets(features)
    single = fit(features, wanted[:, 0], alpha=0.8, lambdas=[1.5], family="gaussian", solver=solver)
    theirs = ElasticNet(alpha=1.5, l1_ratio=0.8, tol=1e-12, max_iter=100000)
    theirs.fit(standardised(features).numpy(), wanted[:, 0].numpy())
    torch.testing.assert_close(single.weights[0, 0], torch.tensor(theirs.coef_), rtol=0, atol=1e-6)
    assert float(single.biases[0, 0]) == pytest.approx(float(theirs.intercept_), abs=1e-6)
    grouped = fit(features, wanted, alpha=0.8, lambdas=[40.0], family="gaussian", grouped=True, solver=solver)
    many = MultiTaskElasticNet(alpha=40.0, l1_ratio=0.8, tol=1e-12, max_iter=100000)
    many.fit(standardised(features).numpy(), wanted.numpy())
    torch.testing.assert_close(grouped.weights[0], torch.tensor(many.coef_), rtol=0, atol=1e-5)
    used = (grouped.weights[0] != 0).any(0)
    assert 0 < int(used.sum()) < len(used)
    assert torch.equal(used, (torch.tensor(many.coef_) != 0).any(0))


def test_orthogonal_features_are_soft_thresholded() -> None:
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    wanted = signs @ torch.tensor([3.0, -1.0, 0.4, 0.0], dtype=torch.float64)
    path = fit(signs, wanted, alpha=0.6, lambdas=[1.0], family="gaussian")
    exact = torch.tensor([(3 - 0.6) / 1.4, -(1 - 0.6) / 1.4, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(path.weights[0, 0], exact, rtol=0, atol=1e-9)


def test_ridge_has_a_closed_form() -> None:
    features, _ = classes()
    wanted, z = targets(features)[:, 0], standardised(features)
    path = fit(features, wanted, alpha=0.0, lambdas=[0.3], family="gaussian", tolerance=1e-7)
    gram = z.T @ z / len(z) + 0.3 * torch.eye(z.shape[1], dtype=torch.float64)
    exact = torch.linalg.solve(gram, z.T @ (wanted - wanted.mean()) / len(z))
    torch.testing.assert_close(path.weights[0, 0], exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("family", "outputs"), [("multinomial", 3), ("binary", 2), ("gaussian", 3)])
def test_the_point_is_optimal_by_its_definition(
    family: str, outputs: int, grouped: bool, weighted: bool
) -> None:
    features, labels = classes(count=120, width=8, outputs=outputs)
    if family == "gaussian":
        labels = targets(features)
    generator = torch.Generator().manual_seed(9)
    shares = torch.rand(len(features), generator=generator, dtype=torch.float64) * 3 if weighted else None
    options = {"family": family, "grouped": grouped, "sample_weights": shares, "alpha": 0.9}
    path = fit(features, labels, n_lambdas=4, min_ratio=0.05, **options)
    plain = torch.ones(len(features), dtype=torch.float64) if shares is None else shares
    mean = (plain[:, None] * features).sum(0) / plain.sum()
    std = ((plain[:, None] * (features - mean) ** 2).sum(0) / plain.sum()).sqrt()
    torch.testing.assert_close(path.mean, mean)
    torch.testing.assert_close(path.std, std)
    z = (features - mean) / std
    assert bool(path.converged.all())
    for point in range(len(path)):
        strength = float(path.lambdas[point])
        weights, bias = (
            path.weights[point].clone().requires_grad_(),
            path.biases[point].clone().requires_grad_(),
        )
        value = objective(family, z, labels, weights, bias, strength, 0.9, grouped, shares)
        assert float(value.detach()) == pytest.approx(float(path.objective[point]), rel=1e-9)
        smooth = objective(family, z, labels, weights, bias, 0.1 * strength, 0.0, grouped, shares)
        by_weights, by_bias = torch.autograd.grad(smooth, (weights, bias))
        limit = strength * 0.9
        assert float(by_bias.abs().max()) < 1e-7 * limit + 1e-12
        weights = weights.detach()
        if grouped:
            for j in range(weights.shape[1]):
                column, slope = weights[:, j], by_weights[:, j]
                if bool((column == 0).all()):
                    assert float(slope.norm()) <= limit * (1 + 1e-7)
                else:
                    torch.testing.assert_close(
                        slope, -limit * column / column.norm(), rtol=0, atol=1e-7 * limit
                    )
        else:
            used = weights != 0
            torch.testing.assert_close(
                by_weights[used], -limit * weights[used].sign(), rtol=0, atol=1e-7 * limit
            )
            assert bool((by_weights[~used].abs() <= limit * (1 + 1e-7)).all())


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("family", ["multinomial", "binary", "gaussian"])
def test_lambda_max_is_where_the_first_feature_comes_in(family: str, grouped: bool) -> None:
    features, labels = classes(outputs=2 if family == "binary" else 4)
    labels = targets(features) if family == "gaussian" else labels
    first = float(fit(features, labels, n_lambdas=1, family=family, grouped=grouped).lambdas[0])
    above, below = first * (1 + 1e-6), first * (1 - 1e-4)
    path = fit(features, labels, lambdas=[above, first, below], family=family, grouped=grouped)
    assert path.features_used.tolist()[0] == 0
    assert path.features_used.tolist()[2] == 1
    prior = torch.bincount(labels).double() / len(labels) if family == "multinomial" else None
    if prior is not None:
        torch.testing.assert_close(torch.softmax(path.biases[0], 0), prior)


def test_weights_count_as_copies() -> None:
    features, labels = classes(count=80, width=6)
    copies = torch.randint(1, 4, (80,), generator=torch.Generator().manual_seed(1))
    index = torch.arange(80).repeat_interleave(copies)
    weighted = fit(features, labels, sample_weights=copies / copies.double().mean(), lambdas=[0.03, 0.01])
    copied = fit(features[index], labels[index], lambdas=[0.03, 0.01])
    torch.testing.assert_close(weighted.weights, copied.weights, rtol=0, atol=1e-7)
    torch.testing.assert_close(weighted.mean, copied.mean)
    torch.testing.assert_close(weighted.std, copied.std)


def test_saga_gets_to_the_same_point() -> None:
    _, labels = classes(count=300)
    features = torch.randn(300, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    features[torch.arange(300), labels] += 1.5
    saga = fit_sparse_path(features, labels, solver="saga", lambdas=[0.05, 0.02], tolerance=1e-3)
    exact = fit(features, labels, lambdas=[0.05, 0.02])
    assert bool(saga.converged.all())
    torch.testing.assert_close(saga.weights, exact.weights, rtol=0, atol=1e-3)
    assert bool(((saga.weights == 0) == (exact.weights == 0)).all())


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_reaches_the_tolerance(solver: str) -> None:
    features, labels = classes(count=500, width=30)
    options = {"n_lambdas": 5, "min_ratio": 0.05, "solver": solver, "tolerance": 1e-4}
    rough = fit_sparse_path(features.float(), labels, **options)  # type: ignore[arg-type]
    assert rough.weights.dtype == torch.float32
    assert bool(rough.converged.all())
    exact = fit(features, labels, n_lambdas=5, min_ratio=0.05)
    torch.testing.assert_close(rough.objective, exact.objective, rtol=0, atol=1e-6)


def test_a_search_beyond_the_precision_of_its_numbers_ends() -> None:
    features, labels = classes(count=500, width=30)
    with pytest.warns(UserWarning, match="expected every point below a KKT violation of 1e-12"):
        path = fit(features.float(), labels, lambdas=[0.02], tolerance=1e-12)
    assert float(path.kkt) < 1e-4
    assert int(path.passes) < 1000


def test_constant_and_collinear_features() -> None:
    features, labels = classes(count=200, width=6)
    odd = torch.cat([features, torch.full((200, 1), 7.3, dtype=torch.float64), features[:, :1]], 1)
    path = fit(odd, labels, lambdas=[0.05, 0.01])
    assert bool(path.converged.all())
    assert float(path.std[6]) == 0
    assert bool((path.weights[:, :, 6] == 0).all())
    torch.testing.assert_close(path.weights[:, :, 0], path.weights[:, :, 7], rtol=0, atol=1e-3)


def test_a_point_that_is_not_optimal_is_flagged_and_said() -> None:
    features, labels = classes()
    with pytest.warns(UserWarning, match="expected every point below a KKT violation of 1e-08, got 3 of 4"):
        path = fit(features, labels, n_lambdas=4, min_ratio=0.1, max_passes=2)
    assert path.converged.tolist() == [True, False, False, False]
    assert "3 points did not reach the tolerance" in path.summary()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(features, labels, n_lambdas=4, min_ratio=0.1)


def test_steps_in_the_gram_metric_need_fewer_passes() -> None:
    features, labels = classes(count=500, width=40)
    gram, fista = (
        fit_sparse_path(features, labels, n_lambdas=8, min_ratio=0.02, solver=solver) for solver in SOLVERS
    )
    assert bool(gram.converged.all()) and bool(fista.converged.all())
    assert 1.5 * int(gram.passes.sum()) < int(fista.passes.sum())
