"""elastic_prox against plain torch, the definition as a minimum, and what users get wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from contract import (
    Sample,
    check_brute_force,
    check_compile,
    check_cuda,
    check_determinism,
    check_layouts,
    check_registration,
    check_values,
)
from torch import Tensor

from pyinterp.ops import elastic_prox

SHAPES = [(), (1,), (7,), (16,), (5, 33), (3, 4, 17), (0, 3), (100, 1001)]
NUMBERS = [(0.7, 0.4, 0.3, 0.9), (1e-3, 100.0, 0.0, 0.0), (0.5, 0.0, 2.0, -0.5), (0.5, 0.0, 0.0, 1.0)]


def both(*args: Any) -> Tensor:
    return torch.stack(elastic_prox(*args))


def plain(
    point: Tensor, gradient: Tensor, previous: Tensor, step: float, l1: float, l2: float, momentum: float
) -> Tensor:
    moved = point - step * gradient
    weights = moved.sign() * (moved.abs() - step * l1).relu() / (1 + step * l2)
    return torch.stack([weights, weights + momentum * (weights - previous)])


def brute_force(
    point: np.ndarray,
    gradient: np.ndarray,
    previous: np.ndarray,
    step: float,
    l1: float,
    l2: float,
    momentum: float,
) -> np.ndarray:
    """The minimum of (w - u)^2 / 2 + step * (l1 |w| + l2 w^2 / 2): one of the three points where it can lie."""

    def objective(w: float, u: float) -> float:
        return (w - u) ** 2 / 2 + step * (l1 * abs(w) + l2 * w**2 / 2)

    out = np.zeros((2, *point.shape))
    for i in np.ndindex(point.shape):
        u = float(point[i]) - step * float(gradient[i])
        right, left = (u - step * l1) / (1 + step * l2), (u + step * l1) / (1 + step * l2)
        w = min((max(right, 0.0), 0.0, min(left, 0.0)), key=lambda w: objective(w, u))
        out[(0, *i)] = w
        out[(1, *i)] = w + momentum * (w - float(previous[i]))
    return out


def arguments(shape: tuple[int, ...], numbers: tuple[float, ...] = NUMBERS[0]) -> tuple[Any, ...]:
    return (torch.randn(shape), torch.randn(shape), torch.randn(shape), *numbers)


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(shape: tuple[int, ...], numbers: tuple[float, ...], device: str) -> None:
    sample = Sample(arguments(shape, numbers), ())
    check_values(both, plain, sample, device)
    check_determinism(both, sample, device)
    if math.prod(shape) < 1000:
        check_brute_force(both, brute_force, sample, device)
    if device == "cuda":
        check_cuda(both, sample)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (3, 5), (0, 3)], ids=str)
def test_registration_and_compilation(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    sample = Sample(arguments(shape), ()).to(device, dtype)
    check_registration([(torch.ops.pyinterp.elastic_prox.default, sample.args)])
    check_compile(both, sample, device)


def test_compiles_with_inductor(device: str) -> None:
    check_compile(both, Sample(arguments((6, 10)), ()), device, backend="inductor")


def test_strides_do_not_matter(device: str) -> None:
    check_layouts(both, plain, Sample(arguments((3, 4, 5)), ()), device)
    point, gradient, previous, *numbers = Sample(arguments((3, 5))).to(device).args
    strided = point.T.contiguous().T, gradient[:, :1].expand(3, 5), torch.stack([previous] * 2, -1)[..., 0]
    for got, wanted in zip(elastic_prox(*strided, *numbers), plain(*strided, *numbers), strict=True):
        assert got.is_contiguous()
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_are_positive_and_exact(dtype: torch.dtype, device: str) -> None:
    point = torch.linspace(-2, 2, 401, dtype=dtype, device=device)
    none = torch.zeros_like(point)
    for l1 in (0.0, 1.0):
        weights, extrapolated = elastic_prox(point, none, none, 1.0, l1, 0.5, 0.0)
        assert torch.equal(weights == 0, point.abs() <= l1)
        assert not torch.signbit(weights[weights == 0]).any()
        assert torch.equal(extrapolated, weights)
    negative = -none
    assert not torch.signbit(elastic_prox(negative, none, none, 1.0, 0.0, 0.0, 0.0)[0]).any()


def test_nan_and_infinity_stay(device: str) -> None:
    point = torch.tensor([math.nan, math.inf, -math.inf], device=device)
    none = torch.zeros(3, device=device)
    for found in elastic_prox(point, none, none, 0.5, 1.0, 1.0, 0.5):
        assert found[0].isnan() and found[1] == math.inf and found[2] == -math.inf


def test_iterated_it_solves_an_elastic_net(device: str) -> None:
    """Where nothing moves any more, the gradient balances the penalty."""
    x = torch.randn(60, 12, dtype=torch.float64, device=device)
    gram, linear = x.T @ x / 60, x.T @ torch.randn(60, dtype=torch.float64, device=device) / 60
    step = 1 / float(torch.linalg.eigvalsh(gram)[-1])
    weights = point = torch.zeros_like(linear)
    for _ in range(2000):
        weights, point = elastic_prox(point, gram @ point - linear, weights, step, 0.05, 0.1, 0.7)
    slope = linear - gram @ weights - 0.1 * weights
    away = torch.where(weights == 0, (slope.abs() - 0.05).clamp_min(0), (slope - 0.05 * weights.sign()).abs())
    assert 0 < int((weights != 0).sum()) < 12
    assert away.max() < 1e-12


def test_it_has_no_gradient_and_changes_no_input(device: str) -> None:
    point, gradient, previous, *numbers = Sample(arguments((4, 5))).to(device).args
    before = [t.clone() for t in (point, gradient, previous)]
    found = elastic_prox(point.requires_grad_(), gradient, previous, *numbers)
    assert not any(t.requires_grad for t in found)
    for t, was in zip((point, gradient, previous), before, strict=True):
        assert torch.equal(t, was)


T = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("error", "words", "args"),
    [
        (TypeError, "got torch.float16, torch.float16", (T.half(), T.half(), T.half(), 1.0, 1.0, 1.0, 0.0)),
        (TypeError, "torch.float32, torch.float64", (T, T.double(), T, 1.0, 1.0, 1.0, 0.0)),
        (ValueError, r"one shape, got \(2, 3\), \(2, 1\), \(2, 3\)", (T, T[:, :1], T, 1.0, 1.0, 1.0, 0.0)),
        (ValueError, "one device, got cpu, cpu, meta", (T, T, T.to("meta"), 1.0, 1.0, 1.0, 0.0)),
        (ValueError, "step > 0.*got step=0.0", (T, T, T, 0.0, 1.0, 1.0, 0.0)),
        (ValueError, "l1=-1.0", (T, T, T, 1.0, -1.0, 1.0, 0.0)),
        (ValueError, "l2=nan", (T, T, T, 1.0, 1.0, math.nan, 0.0)),
        (ValueError, "momentum=inf", (T, T, T, 1.0, 1.0, 1.0, math.inf)),
    ],
)
def test_bad_input(error: type[Exception], words: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(error, match=words):
        elastic_prox(*args)
