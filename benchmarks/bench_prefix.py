"""The shared prefix against plain forwards of masked images: VGG-19, ResNet-50, EfficientNet-Lite0, 3 x 4 players.

python -m pytest benchmarks/bench_prefix.py            (PREFIX_BATCH=16 subsets at a time by default)

Random weights, one 224 x 224 image, 2^12 subsets. The tables are filled once, and their time is shared out over the
4,096 subsets. Then the plain forward, in both memory formats, and the prefix answer the same batches of random subsets
in turns; compared are the medians of the turns, masking included, with the faster of the two plain formats.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import harness
from pyinterp.games import grid_players
from pyinterp.games.forward import full_float32
from pyinterp.games.prefix import SharedPrefix
from pyinterp.models import trace
from pyinterp.models.count import count
from pyinterp.ops.mask_inputs import mask_inputs

BATCH = int(os.environ.get("PREFIX_BATCH", "16"))
TURNS, SUBSETS, SIZE = 5, 4096, 224
NETWORKS = ("vgg19", "resnet50", "tf_efficientnet_lite0")
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ROWS: list[dict[str, Any]] = []


def seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def compare(name: str) -> tuple[dict[str, Any], harness.Step]:
    """Measure one network; return its row, and a step of the prefix."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval().to(harness.DEVICE)
    image = torch.randn(3, SIZE, SIZE).to(harness.DEVICE)
    baseline = torch.zeros_like(image)
    players = grid_players(3, 4).over((SIZE, SIZE)).to(harness.DEVICE)
    traced = trace(model, image[None])
    start = time.perf_counter()
    prefix = SharedPrefix.build(traced, image, baseline, players, batch_size=BATCH)
    build = time.perf_counter() - start
    assert prefix is not None

    @torch.inference_mode()
    def plain(codes: Tensor, layout: torch.memory_format) -> Tensor:
        logits: Tensor = model(mask_inputs(image, baseline, players, codes, memory_format=layout)).cpu()
        return logits

    def difference(codes: Tensor) -> float:
        wanted = plain(codes, torch.contiguous_format)
        return float((prefix(codes).cpu() - wanted).abs().max() / wanted.abs().max())

    def race(codes: Tensor) -> None:
        """One turn of each."""
        for form, layout in FORMATS.items():
            times[form].append(seconds(partial(plain, codes, layout)) / BATCH)
        times["prefix"].append(seconds(lambda: prefix(codes).cpu()) / BATCH)

    times: dict[str, list[float]] = {name: [] for name in (*FORMATS, "prefix")}
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(SUBSETS, (BATCH,), generator=generator).to(harness.DEVICE) for _ in range(TURNS)]
    worst = max(difference(codes) for codes in batches)
    if not worst < 1e-4:
        raise AssertionError(f"expected equal logits, got a relative difference of {worst:.3g}")
    for codes in batches:
        race(codes)
    each = {name: median(values) for name, values in times.items()}
    total = each["prefix"] + build / SUBSETS
    row = {
        "network": name,
        "gigamacs": round(count(traced.module, traced.input_shape)[1] / 1e9, 3),
        "estimated_gain": round(prefix.plan.gain, 2),
        "tables": [
            {
                "at": [n.name for n in cut.nodes],
                "rows": cut.rows,
                "mebibytes": round(cut.rows * cut.numbers / 2**18, 1),
            }
            for cut in prefix.plan.cuts
        ],
        "build_seconds": round(build, 2),
        "milliseconds_per_subset": {name: round(1e3 * value, 3) for name, value in each.items()},
        "milliseconds_per_subset_with_build": round(1e3 * total, 3),
        "relative_difference": worst,
        "faster_than_plain": round(min(each[form] for form in FORMATS) / total, 3),
        "faster_than_contiguous": round(each["contiguous"] / total, 3),
    }
    return row, lambda: prefix(batches[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_prefix(benchmark: BenchmarkFixture, name: str) -> None:
    with full_float32(allow_tf32=False):
        row, step = compare(name)
    ROWS.append(row)
    how = " ".join(__doc__.split("\n\n")[2].split())
    harness.write("prefix", batch=BATCH, how=how, networks=ROWS)
    print(f"\nprefix {name}: {row['faster_than_plain']:.2f}x, estimated {row['estimated_gain']:.2f}x")
    benchmark.extra_info.update(row)
    benchmark.pedantic(step, rounds=2)
