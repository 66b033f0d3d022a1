"""The scores of all layers against those of the answer alone, masked batch by masked batch.

python -m pytest benchmarks/bench_layer_game.py

ResNet-50, EfficientNet-Lite0 and ViT-S with random weights (time does not depend on them), 12 players, in turns in one
run. "game" is a batch of `ImageGame`; "layers" one of `LayerGame`, with probes for 1,000 classes on eight layers that
`find_layers` has chosen and the network's own answer.
"""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from benchmarks import harness
from pyinterp.games import ImageGame, grid_players
from pyinterp.games.forward import full_float32
from pyinterp.heads import SparseHead
from pyinterp.knowledge import LayerGame, Probes, find_layers
from pyinterp.knowledge.taps import Taps

NETWORKS = ("resnet50", "tf_efficientnet_lite0", "vit_small_patch16_224")
BATCH = 128 if harness.DEVICE.type == "cuda" else 8
CLASSES, WIDTH = 1000, 1024
ROWS: list[dict[str, Any]] = []


def random_head(width: int) -> SparseHead:
    return SparseHead(
        weights=torch.randn(CLASSES, width) / width**0.5,
        bias=torch.zeros(CLASSES),
        mean=torch.zeros(width).double(),
        std=torch.ones(width).double(),
        family="multinomial",
        class_names=(),
        classifier_name="",
        model_digest="",
        origin={},
        version="",
    )


def random_probes(model: nn.Module) -> Probes:
    layers = find_layers(model, torch.randn(2, 3, 224, 224, device=harness.DEVICE))
    return Probes(
        model=model,
        layers=layers,
        heads=tuple(random_head(width) for width in Taps(model, layers, WIDTH).widths),
        width=WIDTH,
        rows=tuple(range(CLASSES)),
        accuracy=torch.full((len(layers) + 1,), torch.nan),
        chance=1 / CLASSES,
        held=torch.zeros(0).long(),
        data_digest="",
        fitted=0,
        labels=torch.zeros(0).long(),
        marks=torch.zeros(0).double(),
        class_names=tuple(map(str, range(CLASSES))),
        sample_names=(),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_layer_game(name: str, benchmark: BenchmarkFixture) -> None:
    model = timm.create_model(name).eval().to(harness.DEVICE)
    image, players = torch.randn(3, 224, 224), grid_players(3, 4)
    codes = torch.tensor([code for code in range(4096) if code.bit_count() == 6][:BATCH])
    layered = LayerGame(random_probes(model), image, players, 0)
    game = ImageGame(model, image, players, target=0)
    with full_float32(allow_tf32=False):
        torch.testing.assert_close(layered.evaluate(codes)[:, -1], game.evaluate(codes), rtol=1e-4, atol=1e-4)
    ((alone,), (all_layers,)) = (one._workers(None, 1) for one in (game, layered))
    steps = {"game": lambda: alone(codes)[0].item(), "layers": lambda: all_layers(codes)[0, 0].item()}
    with full_float32(allow_tf32=False):
        times = harness.race(steps, seconds=20, turns=30)
    row: dict[str, Any] = {
        "network": name,
        "batch": BATCH,
        "device": str(harness.DEVICE),
        "layers": list(layered.layers),
    }
    row |= {"milliseconds": times, "layers_over_game": round(times["layers"] / times["game"], 3)}
    ROWS.append(row)
    harness.write("layer_game", how=" ".join(__doc__.split("\n\n")[2].split()), networks=ROWS)
    print(f"\n{name}: {row['layers_over_game']} of {row['layers']}")
    benchmark.extra_info.update(row)
    benchmark.pedantic(steps["layers"], rounds=3, warmup_rounds=1)
