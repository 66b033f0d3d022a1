"""Interactions of a photograph, from the image to the last number, against what users would otherwise write.

python -m pytest benchmarks/bench_effects.py

The default network, the photograph chelsea. Of 2 x 5 players, the AND effects of all 1,024 subsets: ours are
`ImageGame.values` and `harsanyi_and`; "shapiq" is its exact computer on a game that masks images and asks the network
in batches of 16; "eager" and "compile" ask in the same way, the network as it is or by torch.compile, and take
differences player by player; "plain" is the network alone on as many images. Of 1 x 5 players, the Shapley values: ours
from all 32 subsets, Captum's `ShapleyValues` by all 120 orders, on a vector of five presences. All but ours have the
network and the images channels-last, which is the faster format for them. One run, the contenders in turns; what the
first call takes, with torch.compile's own time, stands apart. Peers that are not installed are left out, and named.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import harness
from pyinterp import grid_players, models
from pyinterp.games import ImageGame
from pyinterp.games.forward import full_float32
from pyinterp.interactions import harsanyi_and, shapley
from pyinterp.models import LoadedModel

BATCH = 128 if harness.DEVICE.type == "cuda" else 16
LAST = torch.channels_last
PLAYERS = {"effects": (2, 5), "shapley": (1, 5)}
PEERS = {"effects": {"shapiq": "shapiq"}, "shapley": {"captum": "captum"}}
ROWS: list[dict[str, Any]] = []


class Plain:
    """Masks by hand, asks the network, takes the log-odds: what a notebook does."""

    def __init__(self, loaded: LoadedModel, image: Tensor, player_map: Tensor, target: int) -> None:
        self.image, self.map, self.target = image, player_map.to(image.device), target
        self.count = int(player_map.max()) + 1
        model = copy.deepcopy(loaded.model).to(memory_format=LAST)
        self.networks: dict[str, Callable[[Tensor], Tensor]] = {
            "eager": model,
            "compile": torch.compile(model),
        }

    @torch.inference_mode()
    def scores(self, present: Tensor, network: str = "eager") -> Tensor:
        """(M,) of present (M, n) bool."""
        found = []
        for rows in present.to(self.image.device).split(BATCH):
            shown = rows[:, self.map][:, None]
            masked = torch.where(shown, self.image, 0.0).contiguous(memory_format=LAST)
            logits = self.networks[network](masked)
            found.append(self.log_odds(logits))
        return torch.cat(found).cpu()

    def log_odds(self, logits: Tensor) -> Tensor:
        others = torch.arange(logits.shape[1], device=logits.device) != self.target
        return logits[:, self.target] - logits[:, others].logsumexp(1)

    def effects(self, network: str) -> Tensor:
        """(2^n,) AND effects."""
        codes = torch.arange(2**self.count)
        present = (codes[:, None] >> torch.arange(self.count)) & 1 == 1
        values = self.scores(present, network).double().view([2] * self.count)
        for axis in range(self.count):
            absent, there = values.unbind(axis)
            values = torch.stack([absent, there - absent], axis)
        return values.flatten()

    def shapiq(self) -> Tensor:
        """(2^n,) AND effects by shapiq."""
        from shapiq import ExactComputer, Game

        plain = self

        class Masked(Game):  # type: ignore[misc]
            def value_function(self, coalitions: Any) -> Any:
                return plain.scores(torch.as_tensor(coalitions)).double().numpy()

        found = ExactComputer(Masked(n_players=self.count, normalize=False), self.count)("Moebius")
        effects = torch.zeros(2**self.count, dtype=torch.float64)
        for players, value in found.dict_values.items():
            effects[sum(1 << player for player in players)] = value
        return effects

    def captum(self) -> Tensor:
        """(n,) Shapley values by Captum."""
        from captum.attr import ShapleyValues

        score = lambda presences: self.scores(presences > 0.5)
        given = ShapleyValues(score).attribute(torch.ones(1, self.count), perturbations_per_eval=BATCH)
        return given[0].double()


def played(loaded: LoadedModel, rows: int, columns: int) -> tuple[ImageGame, Plain]:
    game = ImageGame(loaded, models.photographs()["chelsea"], grid_players(rows, columns))
    return game, Plain(loaded, game.image, game.player_map, game.target)


@pytest.mark.parametrize("job", list(PLAYERS))
def test_effects(benchmark: BenchmarkFixture, job: str) -> None:
    loaded = models.load("default", device=harness.DEVICE)
    game, plain = played(loaded, *PLAYERS[job])
    images = game.image.expand(BATCH, -1, -1, -1).contiguous(memory_format=LAST)

    def alone() -> None:
        with torch.inference_mode():
            for _ in range(2**game.count // BATCH):
                plain.networks["eager"](images)[0, 0].item()

    if job == "effects":
        ours: harness.Step = lambda: harsanyi_and(game.values(progress=False).double())
        others: dict[str, harness.Step] = {
            "shapiq": plain.shapiq,
            "eager": lambda: plain.effects("eager"),
            "compile": lambda: plain.effects("compile"),
        }
    else:
        ours = lambda: shapley(game.values(progress=False).double())
        others = {"captum": plain.captum}
    missing = harness.missing(PEERS[job])
    others = {name: step for name, step in others.items() if name not in missing}
    wanted = ours()
    worst, first = 0.0, {}
    with full_float32(allow_tf32=False):
        for name, step in others.items():
            start = time.perf_counter()
            worst = max(worst, float((step() - wanted).abs().max() / wanted.abs().max()))
            first[name] = 1e3 * (time.perf_counter() - start)
        if not worst < 1e-3:
            raise AssertionError(f"expected equal effects, got a relative difference of {worst:.3g}")
        times = harness.race({"pyinterp": ours, "plain": alone, **others}, seconds=60, turns=2)
    row = {
        "job": job,
        "players": game.count,
        "milliseconds": {name: round(value, 1) for name, value in times.items()},
        "milliseconds_of_first_call": {name: round(value, 1) for name, value in first.items()},
        "relative_difference": worst,
        "over_plain": round(times["pyinterp"] / times["plain"], 3),
        "faster_than": {name: round(times[name] / times["pyinterp"], 3) for name in others},
        "not_installed": missing,
    }
    ROWS.append(row)
    harness.write("effects", how=" ".join(__doc__.split("\n\n")[2].split()), jobs=ROWS)
    print(f"\neffects, {job}: over plain {row['over_plain']}, faster than {row['faster_than']}")
    benchmark.extra_info.update(row)
    benchmark.pedantic(ours, rounds=1)
