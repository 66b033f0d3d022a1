"""Networks that use freed memory again against the same networks without.

python -m pytest benchmarks/bench_reused_memory.py

Forwards of 32 images by networks with random weights on the CPU, in inference mode, in turns in one run: "plain" with
glibc's largest limit of its own choice, beyond which freed blocks go back to the system; "reused" within
`reused_memory`.
"""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import harness
from pyinterp.memory import reused_memory

NETWORKS = ("resnet50", "tf_efficientnet_lite0", "vit_small_patch16_224")
BATCH, TURNS = 32, 6
ROWS: list[dict[str, Any]] = []


@pytest.mark.skipif(harness.DEVICE.type != "cpu", reason="a GPU has an allocator of its own")
@pytest.mark.parametrize("name", NETWORKS)
def test_reused_memory(name: str, benchmark: BenchmarkFixture) -> None:
    model, images = timm.create_model(name).eval(), torch.randn(BATCH, 3, 224, 224)

    def step() -> None:
        with torch.inference_mode():
            model(images)

    with torch.inference_mode():
        wanted = model(images)
        with reused_memory():
            torch.testing.assert_close(model(images), wanted)
    times = dict.fromkeys(("plain", "reused"), float("inf"))
    for _ in range(TURNS):
        with reused_memory():
            step()  # the first one fetches what the others use again
            times["reused"] = min(times["reused"], harness.race({"reused": step}, turns=2)["reused"])
        times["plain"] = min(times["plain"], harness.race({"plain": step}, turns=2)["plain"])
    row = {
        "network": name,
        "batch": BATCH,
        "milliseconds": {key: round(value, 1) for key, value in times.items()},
        "faster_than_plain": round(times["plain"] / times["reused"], 3),
    }
    ROWS.append(row)
    harness.write("reused_memory", how=" ".join(__doc__.split("\n\n")[2].split()), networks=ROWS)
    print(f"\n{name}: reused memory {row['faster_than_plain']:.2f}x faster")
    benchmark.extra_info.update(row)
    with reused_memory():
        benchmark.pedantic(step, rounds=2, warmup_rounds=1)
