"""softmax_residual_ against torch, eager and compiled, and a copy of the same bytes.

python -m pytest benchmarks/bench_softmax_residual.py

The others may make their residuals in a new tensor; ours overwrites the logits, so it runs on its own result again and
again, which changes nothing in what there is to do.
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
from pyinterp.ops import softmax_residual_

SIZES = [(8192, 2), (8192, 10), (8192, 100), (8192, 1000), (512, 10), (512, 1000)]


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    harness.show("softmax_residual_", found)


def in_torch(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    logs = F.log_softmax(logits, 1)
    one = labels[:, None]
    losses = -logs.gather(1, one)[:, 0] * weights
    residuals = (logs.exp() - torch.zeros_like(logs).scatter(1, one, 1.0)) * weights[:, None]
    return residuals, losses


def in_place(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What eager torch does best: no tensor of that size but the one of log_softmax."""
    residuals = F.log_softmax(logits, 1)
    one = labels[:, None]
    losses = -residuals.gather(1, one)[:, 0] * weights
    residuals.exp_().scatter_add_(1, one, residuals.new_full((), -1).expand_as(one)).mul_(weights[:, None])
    return residuals, losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_softmax_residual(
    size: tuple[int, int], dtype: torch.dtype, rows: list[dict[str, Any]], benchmark: BenchmarkFixture
) -> None:
    torch._dynamo.reset()
    n, k = size
    logits = torch.randn(n, k, dtype=dtype, device=harness.DEVICE) * 3
    weights = torch.rand(n, dtype=dtype, device=harness.DEVICE)
    labels = torch.randint(0, k, (n,), device=harness.DEVICE)
    own = logits.clone()
    compiled = torch.compile(in_torch, fullgraph=True, dynamic=False)
    contenders: dict[str, harness.Step] = {
        "pyinterp": lambda: (own, softmax_residual_(own, labels, weights)),
        "eager": lambda: in_place(logits, labels, weights),
        "compile": lambda: compiled(logits, labels, weights),
        "bound": logits.clone,
    }
    wanted = in_torch(logits, labels, weights)
    for name in ("pyinterp", "eager", "compile"):
        for got, want in zip(contenders[name](), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    times = harness.race_ops(contenders, seconds=1.0, turns=400)
    ours = times["pyinterp"]
    row = {
        "network": f"{str(dtype).removeprefix('torch.')}, {k} classes",
        "shape": [n, k],
        "count": 1,
        "milliseconds": {name: round(value, 5) for name, value in times.items()},
        "over_bound": round(ours / times["bound"], 3),
        "faster_than_eager": round(times["eager"] / ours, 3),
        "faster_than_compile": round(times["compile"] / ours, 3),
    }
    rows.append(row)
    harness.write("softmax_residual", networks=harness.summarise(rows), sites=rows)
    benchmark.extra_info.update(row)
    benchmark.pedantic(contenders["pyinterp"], rounds=5, warmup_rounds=1)
