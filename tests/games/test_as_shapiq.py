"""A game as shapiq sees it: its scores, its exact values, and an approximator where 2^n subsets are too many."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from playing import convnet, image
from torch import Tensor

from pyinterp.games import Game, ImageGame, grid_players

shapiq = pytest.importorskip("shapiq")


class Additive(Game):
    """v(S) = sum of i over the players i of S, and 100 if players 3 and 40 are both there."""

    def evaluate(self, codes: Tensor) -> Tensor:
        present = torch.stack([codes >> i & 1 for i in range(self.count)], 1).double()
        return present @ torch.arange(self.count).double() + 100 * present[:, 3] * present[:, self.count - 1]


def test_coalitions_are_subsets() -> None:
    game = ImageGame(convnet(), image(), grid_players(2, 3), target=1)
    values, theirs = game.values(), game.as_shapiq()
    rows = np.array([[code >> i & 1 for i in range(6)] for code in range(64)], dtype=bool)
    np.testing.assert_allclose(theirs(rows), values.numpy(), rtol=1e-5, atol=1e-5)
    assert theirs(rows).dtype == np.float64 and theirs.n_players == 6 and not theirs.normalize
    assert theirs([(0, 2)])[0] == pytest.approx(float(values[5]), rel=1e-4)


def test_shapley_values_agree_with_their_definition() -> None:
    game = ImageGame(convnet(), image(), grid_players(1, 4), target=1)
    values = game.values().double()
    exact = shapiq.ExactComputer(game=game.as_shapiq(), n_players=4)("SV", 1)
    for player in range(4):
        wanted = 0.0
        for code in range(16):
            if not code >> player & 1:
                size = code.bit_count()
                weight = [6, 2, 2, 6][size] / 24
                wanted += weight * float(values[code | 1 << player] - values[code])
        assert exact[(player,)] == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_an_approximator_runs_where_subsets_are_too_many() -> None:
    game = Additive([f"p{i}" for i in range(41)])
    found = shapiq.KernelSHAP(n=41, random_state=0)(budget=2000, game=game.as_shapiq(batch_size=512))
    for player in range(41):
        wanted = player + (50 if player in (3, 40) else 0)
        assert found[(player,)] == pytest.approx(wanted, abs=6)


def test_without_shapiq_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapiq", None)
    with pytest.raises(ImportError, match=r'pip install "pyinterp\[shapiq\]"'):
        Additive(["a", "b", "c", "d"]).as_shapiq()
