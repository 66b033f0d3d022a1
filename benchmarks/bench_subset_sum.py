"""subset_sum of one row and of batches, n = 10 ... 24, against a copy of the same bytes and against shapiq.

python -m pytest benchmarks/bench_subset_sum.py
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import harness
from pyinterp.ops import subset_sum

ONE_ROW = [(n, 1) for n in (10, 12, 14, 16, 18, 20, 22, 24)]
BATCHES = [(10, 256), (10, 4096), (12, 64), (12, 1024), (14, 256), (16, 64), (18, 16), (20, 8)]


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    harness.show("subset_sum", found)


def in_numpy(values: np.ndarray) -> np.ndarray:
    sums = values.copy()
    half = values.shape[-1] // 2
    while half > 0:
        pairs = sums.reshape(-1, 2, half)
        pairs[:, 1] += pairs[:, 0]
        half //= 2
    return sums


def in_torch(values: Tensor) -> Tensor:
    sums = values.clone()
    half = values.shape[-1] // 2
    while half > 0:
        pairs = sums.view(-1, 2, half)
        pairs[:, 1] += pairs[:, 0]
        half //= 2
    return sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("n", "batch"), ONE_ROW + BATCHES)
def test_subset_sum(
    n: int, batch: int, dtype: torch.dtype, rows: list[dict[str, Any]], benchmark: BenchmarkFixture
) -> None:
    torch._dynamo.reset()
    values = torch.randn(batch, 2**n, dtype=dtype)
    compiled = torch.compile(in_torch, fullgraph=True, dynamic=False)
    contenders = {
        "pyinterp": lambda: subset_sum(values),
        "bound": values.clone,
        "eager": lambda: in_torch(values),
        "compile": lambda: compiled(values),
        "numpy": lambda: in_numpy(values.numpy()),
    }
    wanted = contenders["eager"]()
    for name in ("pyinterp", "compile", "numpy"):
        torch.testing.assert_close(torch.as_tensor(contenders[name]()), wanted, rtol=1e-4, atol=1e-3)
    times = harness.race(contenders)
    ours = times["pyinterp"]
    row = {
        "network": f"{str(dtype).removeprefix('torch.')}, {'one row' if batch == 1 else 'batches'}",
        "shape": list(values.shape),
        "count": 1,
        "milliseconds": {name: round(value, 5) for name, value in times.items()},
        "over_bound": round(ours / times["bound"], 3),
        "faster_than_eager": round(times["eager"] / ours, 3),
        "faster_than_compile": round(times["compile"] / ours, 3),
        "faster_than_numpy": round(times["numpy"] / ours, 3),
    }
    rows.append(row)
    harness.write("subset_sum", rows)
    benchmark.extra_info.update(row)
    benchmark.pedantic(contenders["pyinterp"], rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("n", [10, 12, 14])
def test_shapiq(n: int, benchmark: BenchmarkFixture) -> None:
    """The Möbius transform of one game whose values are there already, by shapiq's exact computer."""
    shapiq = pytest.importorskip("shapiq", reason="needs shapiq: pip install pyinterp[shapiq]")
    values = torch.randn(2**n, dtype=torch.float64)
    codes = 1 << np.arange(n)
    computer = shapiq.ExactComputer(
        lambda rows: values.numpy()[rows @ codes], n_players=n, evaluate_game=True
    )
    start = time.perf_counter()
    theirs = computer("Moebius", n)
    seconds = time.perf_counter() - start
    ours = subset_sum(values, inverse=True)
    for code in range(0, 2**n, 97):
        players = tuple(i for i in range(n) if code >> i & 1)
        assert abs(theirs[players] - float(ours[code])) < 1e-6
    best = harness.race({"pyinterp": lambda: subset_sum(values, inverse=True)})["pyinterp"]
    benchmark.extra_info["faster_than_shapiq"] = round(seconds * 1e3 / best)
    print(
        f"\nn = {n}: shapiq {seconds:.3f} s, pyinterp {best:.4f} ms, {seconds * 1e3 / best:,.0f} times faster"
    )
    benchmark.pedantic(lambda: subset_sum(values, inverse=True), rounds=5, warmup_rounds=1)
