"""The kernel of the sparse split against its plain-torch form; what it finds is tested in tests/interactions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from pyinterp.ops import and_or_solve
from pyinterp.ops._and_or import CHECK, SumOfSizes, slack_of, solve
from pyinterp.ops.and_or_solve import _tables


def games(count: int, n: int, device: str) -> Tensor:
    values = torch.randn(count, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    return values.to(device)


def bounds(values: Tensor, noise: float) -> Tensor:
    return noise * (values[:, -1] - values[:, 0]).abs()


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("n", range(8))
def test_kernel_and_reference_take_the_same_steps(n: int, noise: float, device: str) -> None:
    """For as many steps as rounding leaves them together."""
    values = games(3, n, device)
    and_, or_, report = and_or_solve(values, bounds(values, noise), 0.0, CHECK)
    for i in range(3):
        bound = bounds(values, noise)[i : i + 1]
        found = solve(values[i : i + 1], bound, SumOfSizes(), 0.0, CHECK)
        wanted = found.effects[:, 0].clone()
        wanted[0, 0] = values[i, 0]
        torch.testing.assert_close(torch.stack([and_[i], or_[i]]), wanted, atol=1e-7, rtol=1e-7)
        numbers = [found.objective, found.lower_bound, float(found.iterations)]
        assert report[i].tolist() == pytest.approx(numbers, rel=1e-9)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_kernel_and_reference_prove_the_same_optimum(noise: float, device: str) -> None:
    values = games(2, 6, device)
    report = and_or_solve(values, bounds(values, noise))[2].cpu()
    for i in range(2):
        bound = bounds(values, noise)[i : i + 1]
        found = solve(values[i : i + 1], bound, SumOfSizes(), 1e-3, 10_000)
        rounding = 1e-9 * found.objective
        assert found.lower_bound <= report[i, 0] + rounding and report[i, 1] <= found.objective + rounding
        assert report[i, 0] - report[i, 1] <= 1e-3 * report[i, 0]


def test_games_with_and_without_a_bound_share_a_call(device: str) -> None:
    values = games(2, 6, device)
    bound = torch.tensor([0.0, 0.2], dtype=torch.float64, device=device)
    together = and_or_solve(values, bound)
    for i in range(2):
        for part, alone in zip(together, and_or_solve(values[i : i + 1], bound[i : i + 1]), strict=True):
            assert torch.equal(part[i : i + 1], alone)


def test_the_number_of_threads_does_not_matter() -> None:
    values = games(5, 6, "cpu")
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 3):
            torch.set_num_threads(count)
            runs.append(and_or_solve(values, bounds(values, 0.04)))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


def test_no_games(device: str) -> None:
    and_, or_, report = and_or_solve(games(0, 4, device), games(0, 0, device)[:, 0])
    assert and_.shape == or_.shape == (0, 16) and report.shape == (0, 3)


def test_strided_values(device: str) -> None:
    values = games(2, 5, device)
    spread = torch.stack([values, values], -1)[..., 0]
    assert torch.equal(
        and_or_solve(spread, bounds(values, 0.1))[0], and_or_solve(values, bounds(values, 0.1))[0]
    )


def test_the_values_stay_as_they_were(device: str) -> None:
    values = games(2, 5, device)
    before = values.clone()
    and_or_solve(values, bounds(values, 0.1))
    assert torch.equal(values, before)


def test_registration(device: str) -> None:
    values = games(2, 3, device)
    basis, inverse, exact = _tables(3, values.device)
    args = (values, bounds(values, 0.1), *basis, inverse, exact, slack_of(3), 1e-3, 100, CHECK)
    opcheck(torch.ops.pyinterp.and_or_solve.default, args)
    opcheck(torch.ops.pyinterp.and_or_split.default, (values, bounds(values, 0.1), 1e-3, 100))


def test_compiles(device: str) -> None:
    values = games(2, 4, device)
    compiled = torch.compile(lambda v, b: and_or_solve(v, b)[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(values, bounds(values, 0.1)), and_or_solve(values, bounds(values, 0.1))[0]
    )


V, B = torch.zeros(2, 8, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (TypeError, "float64 values and bound, got torch.float32 values", lambda: and_or_solve(V.float(), B)),
        (TypeError, "torch.float32 bound", lambda: and_or_solve(V, B.float())),
        (ValueError, r"shape \(games, 2\^n\), got \(8,\)", lambda: and_or_solve(V[0], B)),
        (ValueError, r"shape \(games, 2\^n\), got \(2, 7\)", lambda: and_or_solve(V[:, :7], B)),
        (ValueError, r"bound of shape \(2,\), got \(1,\)", lambda: and_or_solve(V, B[:1])),
        (ValueError, "max_iterations >= 1", lambda: and_or_solve(V, B, max_iterations=0)),
    ],
)
def test_bad_input(error: type[Exception], words: str, call: object) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]


@pytest.mark.gpu
@pytest.mark.parametrize("n", [10, 14])
def test_a_gpu_proves_the_same_optimum_within_and_beyond_shared_memory(n: int) -> None:
    values = games(2, n, "cpu")
    ours = and_or_solve(values.cuda(), bounds(values, 0.2).cuda(), max_iterations=500)[2].cpu()
    wanted = and_or_solve(values, bounds(values, 0.2), max_iterations=500)[2]
    assert (ours[:, 1] <= wanted[:, 0]).all() and (wanted[:, 1] <= ours[:, 0]).all()


@pytest.mark.gpu
def test_a_gpu_replays_it_without_a_sync() -> None:
    values = games(2, 6, "cuda")
    bound = bounds(values, 0.1)
    wanted = and_or_solve(values, bound)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        and_or_solve(values, bound)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    static = values.clone()
    with torch.cuda.stream(stream):
        and_or_solve(static, bound)
        with torch.cuda.graph(graph, stream=stream):
            found = and_or_solve(static, bound)
    static.zero_()
    static.copy_(values)
    graph.replay()
    torch.cuda.synchronize()
    for got, want in zip(found, wanted, strict=True):
        assert torch.equal(got, want)
