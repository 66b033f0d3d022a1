"""A batch of masked images against the plain forward of as many images, and dropped tokens against masked ones.

python -m pytest benchmarks/bench_game.py

ResNet-50, EfficientNet-Lite0 and ViT-S with random weights (time does not depend on them), 12 players, in turns in one
run. "plain" is the network as timm gives it on a batch that is there already; "game" is what `ImageGame.values` runs
per batch: masking, the network, the score. For ViT-S, "drop" runs as many subsets of six players by their tokens. On a
GPU ViT-B comes in addition, and "whole" is `ImageGame.values` of ResNet-50 and ViT-B with 16 players, all 65,536
subsets, over the time of as many plain forwards.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import timm
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from benchmarks import harness
from pyinterp.games import ImageGame, grid_players
from pyinterp.games.forward import full_float32

ON_GPU = harness.DEVICE.type == "cuda"
WHOLE = ("resnet50", "vit_base_patch16_224")
NETWORKS = ("resnet50", "tf_efficientnet_lite0", "vit_small_patch16_224", *(WHOLE[1:] if ON_GPU else ()))
BATCH = 128 if ON_GPU else 8
ROWS: list[dict[str, Any]] = []


def contenders(model: nn.Module, name: str) -> dict[str, harness.Step]:
    """One batch each, the same subsets of six of twelve players."""
    image = torch.randn(3, 224, 224)
    codes = torch.tensor([code for code in range(4096) if code.bit_count() == 6][:BATCH])
    images = image.expand(BATCH, -1, -1, -1).contiguous().to(harness.DEVICE)
    players = grid_players(2, 6) if name.startswith("vit") else grid_players(3, 4)

    def plain() -> None:
        with torch.inference_mode():
            model(images)[0, 0].item()

    @torch.inference_mode()
    def by_hand(players: Any) -> torch.Tensor:
        shown = (codes[:, None, None] >> players.over((224, 224))) & 1
        logits = model((image * shown[:, None]).to(harness.DEVICE)).double()
        return (logits[:, 0] - logits[:, 1:].logsumexp(1)).cpu()

    def played(masking: Any, players: Any) -> harness.Step:
        game = ImageGame(model, image, players, target=0, masking=masking)
        (worker,) = game._workers(None, 1)
        if masking == "replace":
            torch.testing.assert_close(worker(codes).cpu().double(), by_hand(players), rtol=1e-3, atol=1e-3)
        return lambda: worker(codes)[0].item()

    steps = {"plain": plain, "game": played("replace", players)}
    if name.startswith("vit"):
        steps["drop"] = played("drop", grid_players(2, 7).select(range(12)))
    return steps


def whole(model: nn.Module, rows: int, columns: int, milliseconds: float) -> float:
    """Time of all subsets of a grid over that of as many plain forwards, of which a batch takes ``milliseconds``."""
    game = ImageGame(model, torch.randn(3, 224, 224), grid_players(rows, columns), target=0)
    start = time.perf_counter()
    game.values(progress=False)
    seconds = time.perf_counter() - start
    return 1e3 * seconds / (milliseconds / BATCH * 2**game.count)


@pytest.mark.parametrize("name", NETWORKS)
def test_game(name: str, benchmark: BenchmarkFixture) -> None:
    model = timm.create_model(name).eval().to(harness.DEVICE)
    with full_float32(allow_tf32=False):
        steps = contenders(model, name)
        times = harness.race(steps, seconds=20, turns=30)
    row: dict[str, Any] = {
        "network": name,
        "batch": BATCH,
        "device": str(harness.DEVICE),
        "milliseconds": times,
    }
    row["game_over_plain"] = round(times["game"] / times["plain"], 3)
    if "drop" in times:
        row["drop_over_plain"] = round(times["drop"] / times["plain"], 3)
    if ON_GPU and name in WHOLE:
        row["whole_over_plain"] = round(whole(model, 4, 4, times["plain"]), 3)
    ROWS.append(row)
    harness.write("game", how=" ".join(__doc__.split("\n\n")[2].split()), networks=ROWS)
    print(
        "\n" + ", ".join(f"{key} {value}" for key, value in row.items() if "over" in key or key == "network")
    )
    benchmark.extra_info.update(row)
    benchmark.pedantic(steps["game"], rounds=3, warmup_rounds=1)
