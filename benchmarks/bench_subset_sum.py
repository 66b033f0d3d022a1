"""subset_sum of one row and of batches, n = 10 ... 24, against a copy of the same bytes and against shapiq.

python -m pytest benchmarks/bench_subset_sum.py

Short calls are repeated within a turn, so that each contender finds its numbers in cache, as a solver does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import harness
from pyinterp.ops import subset_sum

ONE_ROW = [(n, 1) for n in (10, 12, 14, 16, 18, 20, 22, 24)]
BATCHES = [(10, 256), (10, 4096), (12, 1024), (16, 64), (20, 8)]
REPEATED = 2**17  # numbers per contender and turn, at least


SHAPIQ: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    harness.show("subset_sum", found)


def repeated(step: Callable[[], Any], times: int) -> Callable[[], Any]:
    def steps() -> Any:
        for _ in range(times):
            found = step()
        return found

    return steps


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
    values = torch.randn(batch, 2**n, dtype=dtype, device=harness.DEVICE)
    compiled = torch.compile(in_torch, fullgraph=True, dynamic=False)
    on_cpu = values.cpu().numpy()
    contenders: dict[str, harness.Step] = {
        "pyinterp": lambda: subset_sum(values),
        "bound": values.clone,
        "eager": lambda: in_torch(values),
        "compile": lambda: compiled(values),
        "numpy": lambda: in_numpy(on_cpu),
    }
    wanted = contenders["eager"]()
    for name in ("pyinterp", "compile", "numpy"):
        torch.testing.assert_close(
            torch.as_tensor(contenders[name](), device=wanted.device), wanted, rtol=1e-4, atol=1e-3
        )
    count = max(1, REPEATED // values.numel())
    turns = harness.race_ops({name: repeated(step, count) for name, step in contenders.items()}, seconds=0.5)
    times = {name: turn / count for name, turn in turns.items()}
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
    harness.write("subset_sum", networks=harness.summarise(rows), sites=rows, shapiq=SHAPIQ)
    benchmark.extra_info.update(row)
    benchmark.pedantic(contenders["pyinterp"], rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("n", [10, 12, 14])
def test_shapiq(n: int, rows: list[dict[str, Any]], benchmark: BenchmarkFixture) -> None:
    """The Möbius transform of one game whose values are there already, by shapiq's exact computer."""
    shapiq = pytest.importorskip("shapiq", reason="needs shapiq: pip install pyinterp[shapiq]")
    values = torch.randn(2**n, dtype=torch.float64, device=harness.DEVICE)
    on_cpu, codes = values.cpu().numpy(), 1 << np.arange(n)
    computer = shapiq.ExactComputer(lambda rows: on_cpu[rows @ codes], n_players=n, evaluate_game=True)
    start = time.perf_counter()
    theirs = computer("Moebius", n)
    seconds = time.perf_counter() - start
    ours = subset_sum(values, inverse=True)
    for code in range(0, 2**n, 97):
        players = tuple(i for i in range(n) if code >> i & 1)
        assert abs(theirs[players] - float(ours[code])) < 1e-6
    best = harness.race_ops({"pyinterp": lambda: subset_sum(values, inverse=True)})["pyinterp"]
    row = {
        "players": n,
        "seconds_of_shapiq": round(seconds, 3),
        "milliseconds": round(best, 5),
        "faster_than_shapiq": round(seconds * 1e3 / best),
    }
    SHAPIQ.append(row)
    harness.write("subset_sum", networks=harness.summarise(rows), sites=rows, shapiq=SHAPIQ)
    print(f"\nn = {n}: {row['faster_than_shapiq']:,} times faster than shapiq {shapiq.__version__}")
    benchmark.extra_info.update(row)
    benchmark.pedantic(lambda: subset_sum(values, inverse=True), rounds=5, warmup_rounds=1)
