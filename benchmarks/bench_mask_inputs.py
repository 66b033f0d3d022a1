"""mask_inputs at 3 x 224 x 224: the grid and the segments of a game, 64 subsets, both memory formats.

The bound is one write of the batch, `torch.empty(...).fill_(0)`; "copy" is `torch.clone` of it.

python -m pytest benchmarks/bench_mask_inputs.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import harness
from pyinterp.games import grid_players, segment_players
from pyinterp.models import photographs
from pyinterp.models.images import load_images
from pyinterp.ops import mask_inputs

BATCH, SIDE = 64, 224
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def photograph() -> Tensor:
    picture = photographs()["chelsea"].resize((SIDE, SIDE))
    return load_images(picture).tensor[0]


def players_of(kind: str, image: Tensor) -> Tensor:
    if kind == "grid":
        return grid_players(3, 4).over((SIDE, SIDE))
    if kind == "segments":
        return segment_players(image, 12).map
    return torch.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 12  # "pixels": every run is one pixel long


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    harness.show("mask_inputs", found)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("kind", ["grid", "segments", "pixels"])
def test_mask_inputs(kind: str, layout: str, rows: list[dict[str, Any]], benchmark: BenchmarkFixture) -> None:
    torch._dynamo.reset()
    memory_format = FORMATS[layout]
    image = photograph()
    players = players_of(kind, image).to(harness.DEVICE)
    codes = torch.randint(0, 4096, (BATCH,), device=harness.DEVICE)
    # Plain torch gets both images in the format that it is to write.
    x = image[None].to(harness.DEVICE).contiguous(memory_format=memory_format)
    baseline = torch.zeros_like(x)

    def kernel() -> Tensor:
        return mask_inputs(x[0], baseline[0], players, codes, memory_format=memory_format)

    def plain(x: Tensor, baseline: Tensor, players: Tensor, codes: Tensor) -> Tensor:
        shown = (codes[:, None, None] >> players & 1).bool()[:, None]
        return torch.where(shown, x, baseline).contiguous(memory_format=memory_format)

    compiled = torch.compile(plain, fullgraph=True, dynamic=False)
    batch = kernel()
    steps = {
        "pyinterp": kernel,
        "eager": lambda: plain(x, baseline, players, codes),
        "compile": lambda: compiled(x, baseline, players, codes),
        "bound": lambda: torch.empty_like(batch).fill_(0),
        "copy": lambda: batch.clone(),
    }
    for name in ("eager", "compile"):
        made = steps[name]()
        assert torch.equal(made, batch) and made.stride() == batch.stride()
    times = harness.race_ops(steps)
    ours = times["pyinterp"]
    row = {
        "network": f"{kind}, {layout}",
        "shape": list(batch.shape),
        "count": 1,
        "milliseconds": {name: round(value, 4) for name, value in times.items()},
        "over_bound": round(ours / times["bound"], 3),
        "over_copy": round(ours / times["copy"], 3),
        "faster_than_eager": round(times["eager"] / ours, 3),
        "faster_than_compile": round(times["compile"] / ours, 3),
    }
    rows.append(row)
    harness.write("mask_inputs", networks=harness.summarise(rows), sites=rows)
    benchmark.extra_info.update(row)
    benchmark.pedantic(kernel, rounds=5, warmup_rounds=1)
