"""gated_affine, forward and backward, at every BatchNorm of ResNet-50 and EfficientNet-Lite0.

python -m pytest benchmarks/bench_gated_affine.py
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
from benchmarks.sites import Site, convolution_sites
from pyinterp.ops import gated_affine

ACTIVATIONS = {"none": lambda z: z, "relu": F.relu, "relu6": F.relu6}


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    harness.show("gated_affine", found)


@pytest.mark.parametrize("site", convolution_sites(), ids=lambda site: site.name)
def test_gated_affine(site: Site, rows: list[dict[str, Any]], benchmark: BenchmarkFixture) -> None:
    torch._dynamo.reset()
    channels = site.shape[1]
    x, dy = torch.randn(2, *site.shape, device=harness.DEVICE).unbind()
    bias, mean = torch.randn(2, channels, device=harness.DEVICE).unbind()
    scores, weight, var = torch.rand(3, channels, device=harness.DEVICE).unbind()
    var = var + 0.1
    scale = weight / torch.sqrt(var + 1e-5)
    shift = bias - mean * scale

    def plain(x: Tensor, scores: Tensor) -> Tensor:
        normalised = F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)
        return ACTIVATIONS[site.act](normalised * scores.view(1, -1, 1, 1))

    def kernel(x: Tensor, scores: Tensor) -> Tensor:
        return gated_affine(x, scale, shift, scores, site.act)

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
    harness.write("gated_affine", networks=harness.summarise(rows), sites=rows)
    benchmark.extra_info.update(row)
    benchmark.pedantic(steps["pyinterp"], rounds=5, warmup_rounds=1)
