"""relevant_players finds the players that a network looks at."""

from __future__ import annotations

import pytest
import torch

from pyinterp.games import grid_players, relevant_players


class Spots(torch.nn.Module):
    """The logit of class 1 is a weighted sum of all pixels."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = torch.nn.Buffer(weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        z = (images * self.weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(z), z], 1)


def test_the_most_relevant_of_many_players() -> None:
    weights = torch.rand(1, 18, 18) * 0.01
    weights[:, 3, 4], weights[:, 17, 17], weights[:, 9, 0] = 2.0, -1.0, 0.5
    players = grid_players(9, 9)
    for background, rest in (("keep", -1), ("mask", -2)):
        found = relevant_players(
            Spots(weights).eval(), torch.ones(1, 18, 18), players, 3, target=1, background=background
        )
        assert found.names == ("row 2, column 3", "row 5, column 1", "row 9, column 9")
        assert sorted(found.over((18, 18)).unique().tolist()) == [rest, 0, 1, 2]
    with pytest.raises(ValueError, match="1 to 81 of the players, got 82"):
        relevant_players(Spots(weights).eval(), torch.ones(1, 18, 18), players, 82)
