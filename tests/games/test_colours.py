"""Players who meet never share a colour."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pyinterp.games.colours import colour, meeting


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_neighbours_differ(count: int, seed: int, share: float) -> None:
    drawn = torch.rand(count, count, generator=torch.Generator().manual_seed(seed)) < share
    met = (drawn | drawn.T).fill_diagonal_(False)
    found = torch.tensor(colour(met))
    assert not (met & (found[:, None] == found)).any()
    assert set(found.tolist()) == set(range(int(found.max()) + 1))
    assert int(found.max()) <= int(met.sum(1).max())  # greedy: never more colours than neighbours, plus one


def test_few_colours_where_few_are_enough() -> None:
    row, column = torch.arange(12) // 4, torch.arange(12) % 4
    apart = torch.maximum((row[:, None] - row).abs(), (column[:, None] - column).abs())
    king, knights = (apart <= 1) & (apart > 0), (apart <= 2) & (apart > 0)
    assert max(colour(king)) + 1 == 4
    assert max(colour(knights)) + 1 == 9
    assert colour(torch.zeros(5, 5, dtype=torch.bool)) == (0,) * 5
    assert sorted(colour(~torch.eye(5, dtype=torch.bool))) == list(range(5))


def test_players_meet_where_both_reach_a_position() -> None:
    reach = torch.tensor([[[1, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 0, 1]]]).bool()
    assert meeting(reach).tolist() == [[False, True, False], [True, False, False], [False, False, False]]
