"""gate, forward and backward, at every site of ResNet-50, EfficientNet-Lite0 and ViT-B.

python -m pytest benchmarks/bench_gate.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import harness
from benchmarks.sites import Site, gate_sites
from pyinterp.ops import gate


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    harness.show("gate", found)


@pytest.mark.parametrize("site", gate_sites(), ids=lambda site: site.name)
def test_gate(site: Site, rows: list[dict[str, Any]], benchmark: BenchmarkFixture) -> None:
    torch._dynamo.reset()
    x, dy = torch.randn(2, *site.shape, device=harness.DEVICE).unbind()
    scores = torch.rand(site.shape[site.dim], device=harness.DEVICE)
    view = [1] * x.dim()
    view[site.dim] = -1

    def plain(x: Tensor, scores: Tensor) -> Tensor:
        return x * scores.view(view)

    def kernel(x: Tensor, scores: Tensor) -> Tensor:
        return gate(x, scores, dim=site.dim)

    functions = {
        "pyinterp": kernel,
        "eager": plain,
        "compile": torch.compile(plain, fullgraph=True, dynamic=False),
    }
    steps = {name: harness.forward_backward(f, x, scores, dy) for name, f in functions.items()}
    harness.validate(steps["pyinterp"], steps["eager"])
    harness.validate(steps["compile"], steps["eager"])
    row = harness.describe(site, harness.race_ops({**steps, "bound": harness.bound(x)}))
    rows.append(row)
    harness.write("gate", networks=harness.summarise(rows), sites=rows)
    benchmark.extra_info.update(row)
    benchmark.pedantic(steps["pyinterp"], rounds=5, warmup_rounds=1)
