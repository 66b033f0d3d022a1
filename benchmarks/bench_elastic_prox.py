"""elastic_prox against torch, eager and compiled, and copies of the same bytes: three tensors read, two written.

python -m pytest benchmarks/bench_elastic_prox.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import harness
from pyinterp.ops import elastic_prox

SHAPES = [(10, 512), (100, 512), (100, 2048), (1000, 2048)]  # classes and features of a linear head
NUMBERS = (0.3, 0.5, 0.1, 0.8)


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    harness.show("elastic_prox", found)


def in_torch(
    point: Tensor, gradient: Tensor, previous: Tensor, step: float, l1: float, l2: float, momentum: float
) -> tuple[Tensor, Tensor]:
    weights = F.softshrink(point - step * gradient, step * l1) / (1 + step * l2)
    return weights, weights + momentum * (weights - previous)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_elastic_prox(
    shape: tuple[int, int], dtype: torch.dtype, rows: list[dict[str, Any]], benchmark: BenchmarkFixture
) -> None:
    torch._dynamo.reset()
    point, gradient, previous = torch.randn(3, *shape, dtype=dtype, device=harness.DEVICE).unbind()
    compiled = torch.compile(in_torch, fullgraph=True, dynamic=False)
    contenders = {
        "pyinterp": lambda: elastic_prox(point, gradient, previous, *NUMBERS),
        "eager": lambda: in_torch(point, gradient, previous, *NUMBERS),
        "compile": lambda: compiled(point, gradient, previous, *NUMBERS),
        "bound": harness.bound(point),
    }
    harness.validate(contenders["pyinterp"], contenders["eager"])
    harness.validate(contenders["compile"], contenders["eager"])
    times = harness.race_ops(contenders, seconds=1.0, turns=400)
    ours = times["pyinterp"]
    row = {
        "network": str(dtype).removeprefix("torch."),
        "shape": list(shape),
        "count": 1,
        "milliseconds": {name: round(value, 5) for name, value in times.items()},
        "over_bound": round(ours / times["bound"], 3),
        "faster_than_eager": round(times["eager"] / ours, 3),
        "faster_than_compile": round(times["compile"] / ours, 3),
    }
    rows.append(row)
    harness.write("elastic_prox", networks=harness.summarise(rows), sites=rows)
    benchmark.extra_info.update(row)
    benchmark.pedantic(contenders["pyinterp"], rounds=5, warmup_rounds=1)
