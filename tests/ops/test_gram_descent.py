"""gram_descent against scikit-learn, closed forms, the conditions of an optimum, and loops from the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from contract import check_registration
from torch import Tensor

from pyinterp._extension import has_kernel
from pyinterp.ops import gram_descent
from pyinterp.ops.gram_descent import _reference

TIGHT = {torch.float32: 1e-6, torch.float64: 1e-12}
# Problems, coordinates, samples: below and beyond the lanes, the tiles (64 to 128) and the blocks (256) of the kernel.
SIZES = [
    (1, 1, 4),
    (1, 5, 20),
    (3, 2, 9),
    (4, 17, 60),
    (3, 40, 30),
    (2, 130, 260),
    (2, 300, 150),
    (2, 530, 400),
]
PENALTIES = [(0.1, 0.05), (0.05, 0.0), (0.0, 0.5), (0.6, 0.01)]


def problem(
    k: int, d: int, n: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Linear terms (k, d) and Gram matrix (d, d) of n correlated samples."""
    x = torch.randn(n, d, dtype=torch.float64) + 0.5 * torch.randn(n, 1, dtype=torch.float64)
    truth = torch.randn(k, d, dtype=torch.float64) * (torch.rand(k, d) < 0.2)
    y = truth @ x.T + 0.3 * torch.randn(k, n, dtype=torch.float64)
    return ((y @ x) / n).to(device, dtype), (x.T @ x / n).to(device, dtype)


def distance_from_optimum(c: Tensor, gram: Tensor, w: Tensor, l1: float, l2: float) -> Tensor:
    """How far each subgradient stays from zero: 0 at the optimum, by definition."""
    slope = c - w @ gram - l2 * w
    return torch.where(w == 0, (slope.abs() - l1).clamp_min(0), (slope - l1 * w.sign()).abs())


def brute_force(
    c: np.ndarray, gram: np.ndarray, w: np.ndarray, l1: float, l2: float, tolerance: float, most: int
) -> tuple[np.ndarray, int]:
    """One problem, one number at a time, with every residual from scratch."""
    w = w.copy()
    sweeps, active = 0, None
    while sweeps < most:
        sweeps += 1
        largest = 0.0
        for j in range(len(w)) if active is None else active:
            curvature = gram[j, j] + l2
            if curvature == 0:
                w[j] = 0
                continue
            aim = c[j] - sum(gram[j, i] * w[i] for i in range(len(w)) if i != j)
            best = np.sign(aim) * max(abs(aim) - l1, 0) / curvature
            largest = max(largest, abs(best - w[j]) * curvature)
            w[j] = best
        if largest > tolerance and active is None:
            active = [j for j in range(len(w)) if w[j] != 0]
        elif largest <= tolerance:
            if active is None:
                break
            active = None
    return w, sweeps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("l1", "l2"), PENALTIES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_optimum_is_reached(
    size: tuple[int, int, int], l1: float, l2: float, dtype: torch.dtype, device: str
) -> None:
    if size[1] > 20 and not has_kernel("gram_descent", device):
        pytest.skip("the reference would take minutes; it is compared with the kernel below")
    c, gram = problem(*size, dtype, device)
    scale = float(c.abs().max())
    l1, tolerance = l1 * scale, TIGHT[dtype] * 10 * scale
    w, sweeps = gram_descent(c, gram, torch.zeros_like(c), l1, l2, tolerance, 20_000)
    assert (sweeps < 20_000).all()
    away = distance_from_optimum(c.double(), gram.double(), w.double(), l1, l2)
    assert away.max() < 30 * tolerance
    assert w.dtype == dtype and w.is_contiguous() and sweeps.dtype == torch.int64


@pytest.mark.parametrize("most", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("size", [(1, 1, 4), (3, 2, 9), (4, 17, 60), (2, 40, 30)], ids=str)
def test_it_takes_the_steps_of_the_definition(size: tuple[int, int, int], most: int, device: str) -> None:
    c, gram = problem(*size, device=device)
    start = torch.randn_like(c) * (torch.rand_like(c) < 0.3)
    numbers = (0.1 * float(c.abs().max()), 0.1, 1e-7, most)
    w, sweeps = gram_descent(c, gram, start, *numbers)
    for i in range(len(c)):
        row, first = c[i].cpu().numpy(), start[i].cpu().numpy()
        wanted, count = brute_force(row, gram.cpu().numpy(), first, *numbers)
        assert int(sweeps[i]) == count
        np.testing.assert_allclose(w[i].cpu().numpy(), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [(5, 33, 50), (2, 300, 200)], ids=str)
def test_the_reference_takes_the_same_steps(size: tuple[int, int, int]) -> None:
    c, gram = problem(*size)
    start = torch.randn_like(c) * (torch.rand_like(c) < 0.2)
    args = (c, gram, start, 0.1 * float(c.abs().max()), 0.05, 1e-6, 40)
    w, sweeps = gram_descent(*args)
    wanted, counted = _reference(*args)
    assert torch.equal(sweeps, counted)
    torch.testing.assert_close(w, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 0.05])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.8, 0.3])
def test_against_scikit_learn(alpha: float, l1_ratio: float, device: str) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    n, d, k = 80, 30, 4
    x, y = np.random.default_rng(0).normal(size=(n, d)), np.random.default_rng(1).normal(size=(k, n))
    y += x[:, :k].T * 2
    gram = torch.from_numpy(x.T @ x / n).to(device)
    c = torch.from_numpy(y @ x / n).to(device)
    w, _ = gram_descent(c, gram, torch.zeros_like(c), alpha * l1_ratio, alpha * (1 - l1_ratio), 1e-11, 10_000)
    for i in range(k):
        net = linear_model.ElasticNet(
            alpha=alpha, l1_ratio=l1_ratio, fit_intercept=False, precompute=x.T @ x, tol=1e-14, max_iter=10**5
        )
        np.testing.assert_allclose(w[i].cpu().numpy(), net.fit(x, y[i]).coef_, atol=1e-8)


def test_along_a_path_of_scikit_learn() -> None:
    """Each optimum is the start of the next, as a path solver does it."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(2)
    x, y = random.normal(size=(60, 40)), random.normal(size=60)
    gram, c = torch.from_numpy(x.T @ x / 60), torch.from_numpy(y @ x / 60)[None]
    steps = np.geomspace(1, 0.1, 8) * float(c.abs().max()) / 0.9
    alphas, coefficients, _ = linear_model.enet_path(x, y, l1_ratio=0.9, alphas=steps, tol=1e-14)
    w = torch.zeros_like(c)
    for alpha, wanted in zip(alphas, coefficients.T, strict=True):
        w, _ = gram_descent(c, gram, w, float(0.9 * alpha), float(0.1 * alpha), 1e-12, 10_000)
        np.testing.assert_allclose(w[0].numpy(), wanted, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closed_forms(dtype: torch.dtype, device: str) -> None:
    c, gram = problem(3, 20, 90, dtype, device)
    zero, tolerance = torch.zeros_like(c), TIGHT[dtype]
    ridge = torch.linalg.solve(gram + 0.5 * torch.eye(20, dtype=dtype, device=device), c.T).T
    torch.testing.assert_close(
        gram_descent(c, gram, zero, 0.0, 0.5, tolerance, 10_000)[0], ridge, rtol=0, atol=1e2 * tolerance
    )
    diagonal = torch.rand(20, dtype=dtype, device=device) + 0.1
    soft = c.sign() * (c.abs() - 0.2).clamp_min(0) / (diagonal + 0.3)
    w, sweeps = gram_descent(c, diagonal.diag(), zero, 0.2, 0.3, tolerance, 10)
    torch.testing.assert_close(w, soft)
    assert sweeps.max() <= 3  # one to find it, one over the active, one over all to make sure


def test_beyond_the_largest_linear_term_all_is_zero(device: str) -> None:
    c, gram = problem(3, 300, 100, torch.float32, device)
    w, sweeps = gram_descent(c, gram, torch.zeros_like(c), float(c.abs().max()), 0.0, 0.0, 100)
    assert not w.any() and (sweeps == 1).all()


def test_a_start_at_the_optimum_takes_one_sweep(device: str) -> None:
    c, gram = problem(5, 40, 80, device=device)
    w, sweeps = gram_descent(c, gram, torch.zeros_like(c), 0.1, 0.01, 1e-9, 100_000)
    assert (sweeps > 1).all()
    again, more = gram_descent(c, gram, w, 0.1, 0.01, 2e-9, 100_000)
    assert (more == 1).all()
    torch.testing.assert_close(again, w, rtol=0, atol=1e-8)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_features_twice_and_collinear_ones(l2: float, device: str) -> None:
    x = torch.randn(50, 12, dtype=torch.float64, device=device)
    x[:, 5] = x[:, 2]
    x[:, 7] = 2 * x[:, 3] - x[:, 4]
    gram, c = x.T @ x / 50, x[:, :3].T @ x / 50
    w, sweeps = gram_descent(c, gram, torch.zeros_like(c), 0.1, l2, 1e-10, 100_000)
    assert (sweeps < 100_000).all()
    assert distance_from_optimum(c, gram, w, 0.1, l2).max() < 1e-8
    if l2 > 0:  # the squares share the weight between twins
        torch.testing.assert_close(w[:, 2], w[:, 5], rtol=0, atol=1e-6)
        assert w[2, 2] > 0.1


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("d", [9, 40])
def test_features_that_are_always_zero_stay_zero(d: int, l2: float, device: str) -> None:
    c, gram = problem(3, d, 60, device=device)
    for j in (0, 4, d - 1):
        c[:, j] = gram[j, :] = gram[:, j] = 0
    w, sweeps = gram_descent(c, gram, torch.ones_like(c), 0.05, l2, 1e-10, 100_000)
    assert (sweeps < 100_000).all() and torch.isfinite(w).all()
    assert not w[:, [0, 4, d - 1]].any() and w.any(1).all()
    others = [j for j in range(d) if j not in (0, 4, d - 1)]
    alone, _ = gram_descent(
        c[:, others], gram[others][:, others], torch.ones(3, d - 3).to(c), 0.05, l2, 1e-10, 100_000
    )
    torch.testing.assert_close(w[:, others], alone, rtol=0, atol=1e-8)


def test_rows_do_not_meet_and_threads_do_not_matter() -> None:
    c, gram = problem(9, 70, 100, torch.float32)
    start = torch.randn_like(c)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(gram_descent(c, gram, start, 0.1, 0.01, 1e-6, 500))
    finally:
        torch.set_num_threads(threads)
    # Without the kernel, torch's matrix products may sum in another order with other threads or rows.
    exact = {"rtol": 0, "atol": 0} if has_kernel("gram_descent", "cpu") else {"rtol": 1e-4, "atol": 1e-5}
    for run in runs[1:]:
        torch.testing.assert_close(run[0], runs[0][0], **exact)
        if has_kernel("gram_descent", "cpu"):
            assert torch.equal(run[1], runs[0][1])
    for i in range(9):
        w, _ = gram_descent(c[i : i + 1], gram, start[i : i + 1], 0.1, 0.01, 1e-6, 500)
        torch.testing.assert_close(w[0], runs[0][0][i], **exact)


def test_rows_of_one_call_take_their_own_number_of_sweeps(device: str) -> None:
    c, gram = problem(2, 30, 60, device=device)
    c[1] = 0
    w, sweeps = gram_descent(c, gram, torch.zeros_like(c), 0.1, 0.0, 1e-9, 100_000)
    assert sweeps[0] > 1 and sweeps[1] == 1 and not w[1].any()


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)], ids=str)
def test_nothing_to_do(shape: tuple[int, int], device: str) -> None:
    c = torch.zeros(shape, device=device)
    w, sweeps = gram_descent(c, torch.zeros(shape[1], shape[1], device=device), c, 0.1, 0.1, 1e-6, 10)
    assert w.shape == shape and sweeps.shape == shape[:1]
    assert (sweeps == 1).all()


def test_strided_input_stays_as_it_was(device: str) -> None:
    c, gram = problem(4, 20, 40, device=device)
    start = torch.randn_like(c)
    wanted = gram_descent(c, gram, start, 0.1, 0.1, 1e-9, 1000)
    strided = c.T.contiguous().T, torch.stack([gram, gram], -1)[..., 0], start.T.contiguous().T
    before = [t.clone() for t in strided]
    found = gram_descent(*strided, 0.1, 0.1, 1e-9, 1000)
    assert found[0].is_contiguous()
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want)
    assert all(torch.equal(t, was) for t, was in zip(strided, before, strict=True))


@pytest.mark.parametrize("d", [3, 40])
def test_nan_does_not_pass_for_a_result(d: int, device: str) -> None:
    c, gram = problem(2, d, 60, device=device)
    c[0, 1] = torch.nan
    w, sweeps = gram_descent(c, gram, torch.zeros_like(c), 0.1, 0.1, 1e-6, 200)
    assert w[0].isnan().any() and sweeps[0] == 200
    assert torch.isfinite(w[1]).all() and sweeps[1] < 200


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_registration_and_compilation(dtype: torch.dtype, device: str) -> None:
    c, gram = problem(3, 6, 20, dtype, device)
    args = (c, gram, torch.zeros_like(c), 0.1, 0.1, 1e-5, 100)
    check_registration([(torch.ops.pyinterp.gram_descent.default, args)])
    torch._dynamo.reset()
    compiled = torch.compile(gram_descent, fullgraph=True, dynamic=True, backend="aot_eager")
    for got, wanted in zip(compiled(*args), gram_descent(*args), strict=True):
        torch.testing.assert_close(got, wanted)
    assert not any(t.requires_grad for t in gram_descent(c.requires_grad_(), *args[1:]))


def test_a_negative_diagonal_is_refused() -> None:
    with pytest.raises(RuntimeError, match="must not be negative"):
        gram_descent(C, -torch.eye(3), C, 0.1, 0.1, 1e-6, 10)


C, G = torch.zeros(2, 3), torch.eye(3)


@pytest.mark.parametrize(
    ("error", "words", "args"),
    [
        (TypeError, "torch.float16", (C.half(), G.half(), C.half(), 0.1, 0.1, 0.1, 1)),
        (TypeError, "torch.float32, torch.float64, torch.float32", (C, G.double(), C, 0.1, 0.1, 0.1, 1)),
        (ValueError, r"shape \(K, d\), got \(3,\)", (C[0], G, C[0], 0.1, 0.1, 0.1, 1)),
        (ValueError, r"gram of shape \(3, 3\), got \(3, 2\)", (C, G[:, :2], C, 0.1, 0.1, 0.1, 1)),
        (ValueError, r"weights of shape \(2, 3\), got \(3, 3\)", (C, G, G, 0.1, 0.1, 0.1, 1)),
        (ValueError, "one device, got cpu, meta, cpu", (C, G.to("meta"), C, 0.1, 0.1, 0.1, 1)),
        (ValueError, "l1=-0.1", (C, G, C, -0.1, 0.1, 0.1, 1)),
        (ValueError, "l2=inf", (C, G, C, 0.1, float("inf"), 0.1, 1)),
        (ValueError, "tolerance=nan", (C, G, C, 0.1, 0.1, float("nan"), 1)),
        (ValueError, "max_sweeps=0", (C, G, C, 0.1, 0.1, 0.1, 0)),
    ],
)
def test_bad_input(error: type[Exception], words: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(error, match=words):
        gram_descent(*args)
