"""gram_descent against scikit-learn's elastic net on a Gram matrix and against FISTA with matrix products.

python -m pytest benchmarks/bench_gram_descent.py

The problems are linear heads by least squares: 10 to 1000 classes on correlated, standardised features, 20 to 50 of
them for each class. A cold start is at zero, a warm one at the optimum for an l1 of 15 % more, as along a path. All end
within 1e-4 of the largest linear term, by the conditions of an optimum; scikit-learn gets the largest power of ten as
`tol` that comes that close. It solves one class after the other, so ten of them stand for all.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import harness
from pyinterp.ops import elastic_prox, gram_descent

# Features, classes, l1 over the largest linear term.
SIZES = [
    (64, 10, 0.1),
    (512, 10, 0.1),
    (512, 100, 0.15),
    (2048, 10, 0.06),
    (2048, 100, 0.1),
    (2048, 1000, 0.15),
]
CASES = [(*size, torch.float32) for size in SIZES] + [(*size, torch.float64) for size in SIZES[2:5:2]]
L2, CLOSE, MOST, WARMER, FEW = 1e-3, 1e-4, 5000, 1.15, 10


class Problem(NamedTuple):
    """Features (n, d), centred labels (n, k), their products, the penalty and how close to come."""

    x: Tensor
    y: Tensor
    linear: Tensor
    gram: Tensor
    l1: float
    close: float


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    for row in found:
        print(
            f"\ngram_descent {row['shape']} {row['start']}, {row['non_zeros']} non-zeros: "
            f"faster than scikit-learn {row['faster_than_sklearn']:.1f}x, than FISTA {row['faster_than_fista']:.1f}x",
            end="",
        )
    print()


def problem(d: int, k: int, share: float, dtype: torch.dtype) -> Problem:
    """ReLU features that tell k classes apart."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    n = 3 * d + 500
    labels = torch.randint(0, k, (n,), generator=generator)
    hidden = normal(k, 32)[labels] + normal(n, 32)
    x = torch.relu(hidden @ normal(32, d) / 5 + 0.7 * normal(n, d))
    x = ((x - x.mean(0)) / x.std(0)).to(dtype)
    y = F.one_hot(labels, k).to(dtype)
    y = y - y.mean(0)
    linear = y.T @ x / n
    top = float(linear.abs().max())
    return Problem(x, y, linear, x.T @ x / n, share * top, CLOSE * top)


def away(p: Problem, w: Tensor) -> float:
    """How far the weights of the first classes are from the conditions of an optimum."""
    slope = p.linear[: len(w)] - w @ p.gram - L2 * w
    return float(torch.where(w == 0, slope.abs() - p.l1, (slope - p.l1 * w.sign()).abs()).max())


def fista(p: Problem, start: Tensor, step: float) -> Tensor:
    """Accelerated proximal gradient descent for all classes, started anew where it turns back."""
    weights = point = start
    t = 1.0
    for iteration in range(MOST):
        before, after = weights, (1 + (1 + 4 * t * t) ** 0.5) / 2
        gradient = point @ p.gram - p.linear
        weights, ahead = elastic_prox(point, gradient, before, step, p.l1, L2, (t - 1) / after)
        if float(((point - weights) * (weights - before)).sum()) > 0:
            t, point = 1.0, weights
        else:
            t, point = after, ahead
        if iteration % 10 == 9 and away(p, weights) <= p.close:
            break
    return weights


def by_scikit_learn(p: Problem, start: Tensor) -> Callable[[float], Tensor]:
    """Make a solver of the first classes for a given `tol`."""
    path = pytest.importorskip("sklearn.linear_model").enet_path
    x, n = np.asfortranarray(p.x.numpy()), len(p.x)
    gram, linear = p.gram.numpy() * n, p.linear.numpy() * n
    alpha = p.l1 + L2

    def solve(tolerance: float) -> Tensor:
        found = []
        for i in range(min(FEW, len(linear))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _, w, _ = path(
                    x,
                    np.ascontiguousarray(p.y[:, i].numpy()),
                    l1_ratio=p.l1 / alpha,
                    alphas=[alpha],
                    precompute=gram,
                    Xy=linear[i],
                    coef_init=start[i].numpy(),
                    check_input=False,
                    tol=tolerance,
                    max_iter=MOST,
                )
            found.append(w[:, 0])
        return torch.from_numpy(np.stack(found))

    return solve


def timed(step: Callable[[], Any], seconds: float = 1.0) -> float:
    """Return the best time of a step, in milliseconds."""
    best, stop = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < stop:
        start = time.perf_counter()
        step()
        best = min(best, (time.perf_counter() - start) * 1e3)
    return best


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(("d", "k", "share", "dtype"), CASES)
def test_gram_descent(
    d: int,
    k: int,
    share: float,
    dtype: torch.dtype,
    warm: bool,
    rows: list[dict[str, Any]],
    benchmark: BenchmarkFixture,
) -> None:
    p = problem(d, k, share, dtype)
    start = torch.zeros_like(p.linear)
    if warm:
        start, _ = gram_descent(p.linear, p.gram, start, p.l1 * WARMER, L2, p.close / 10, MOST)

    def ours() -> tuple[Tensor, Tensor]:
        return gram_descent(p.linear, p.gram, start, p.l1, L2, p.close / 2, MOST)

    step = 1 / float(torch.linalg.eigvalsh(p.gram)[-1])
    solve = by_scikit_learn(p, start)
    tolerance = next(tol for tol in 10.0 ** -np.arange(1, 9) if away(p, solve(tol)) <= p.close)
    w, sweeps = ours()
    assert away(p, w) <= p.close
    assert away(p, fista(p, start, step)) <= p.close
    milliseconds = {
        "pyinterp": timed(ours),
        "sklearn": timed(lambda: solve(tolerance)) * k / min(FEW, k),
        "fista": timed(lambda: fista(p, start, step)),
    }
    row = {
        "shape": [k, d],
        "dtype": str(dtype).removeprefix("torch."),
        "start": "warm" if warm else "cold",
        "non_zeros": round(float((w != 0).sum(1).float().mean()), 1),
        "sweeps": round(float(sweeps.float().mean()), 1),
        "sklearn_tol": tolerance,
        "milliseconds": {name: round(value, 4) for name, value in milliseconds.items()},
        "faster_than_sklearn": round(milliseconds["sklearn"] / milliseconds["pyinterp"], 2),
        "faster_than_fista": round(milliseconds["fista"] / milliseconds["pyinterp"], 2),
    }
    rows.append(row)
    harness.write("gram_descent", torch.device("cpu"), problems=rows)
    benchmark.extra_info.update(row)
    benchmark.pedantic(ours, rounds=3, warmup_rounds=1)
