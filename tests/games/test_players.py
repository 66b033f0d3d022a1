"""Players: what lies where, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyinterp.games import Players, box_players, feature_players, grid_players, token_players

WORDS = ["[CLS]", "the", "cat", "saw", "the", "dog", "[SEP]", "[PAD]"]


def test_a_grid_is_stretched_over_the_image() -> None:
    players = grid_players(2, 3)
    assert players.count == 6
    assert players.names[:2] == ("row 1, column 1", "row 1, column 2")
    assert players.names[-1] == "row 2, column 3"
    assert players.over((4, 7)).tolist() == [
        [0, 0, 0, 1, 1, 2, 2],
        [0, 0, 0, 1, 1, 2, 2],
        [3, 3, 3, 4, 4, 5, 5],
        [3, 3, 3, 4, 4, 5, 5],
    ]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 20), st.integers(0, 20))
@settings(deadline=None, max_examples=50)
def test_cells_of_a_grid_are_of_one_size(rows: int, cols: int, more_rows: int, more_cols: int) -> None:
    laid = grid_players(rows, cols).over((rows + more_rows, cols + more_cols))
    heights = [int((laid[:, 0] == i * cols).sum()) for i in range(rows)]
    widths = [int((laid[0] == i).sum()) for i in range(cols)]
    assert max(heights) - min(heights) <= 1 and max(widths) - min(widths) <= 1
    assert laid.flatten().bincount().tolist() == [h * w for h in heights for w in widths]


def test_a_grid_covers_a_box_alone() -> None:
    laid = grid_players(1, 2, box=(0.25, 0.5, 0.75, 1)).over((4, 8))
    assert laid.tolist() == [[-1] * 8] * 2 + [[-1, -1, 0, 0, 1, 1, -1, -1]] * 2
    masked = grid_players(1, 2, box=(0.25, 0.5, 0.75, 1), background="mask").over((4, 8))
    assert torch.equal(masked, torch.where(laid < 0, -2, laid))


def test_boxes_and_masks() -> None:
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[2, 4] = True
    players = box_players([(0, 0, 2, 2), mask, (2.6, -3, 99, 1)], names=["a", "b", "c"], background="mask")
    assert players.names == ("a", "b", "c")
    assert players.map.tolist() == [[0, 0, -2, 2, 2], [0, 0, -2, -2, -2], [-2, -2, -2, -2, 1]]
    assert box_players([(0, 0, 1, 1)], size=(1, 2)).map.tolist() == [[0, -1]]
    assert torch.equal(players.over((3, 5)), players.map)


def test_tokens_without_the_special_ones() -> None:
    players = token_players(WORDS)
    assert players.names == ("the (1)", "cat", "saw", "the (4)", "dog")
    assert players.map.tolist() == [-1, 0, 1, 2, 3, 4, -1, -1]


def test_chosen_tokens_and_words_of_several() -> None:
    players = token_players(WORDS, [-3, [1, 2]], background="mask")
    assert players.names == ("dog", "the cat")
    assert players.map.tolist() == [-2, 1, 1, -2, -2, 0, -2, -2]


def test_columns_and_groups_of_columns() -> None:
    assert feature_players(["age", "size"]).map.tolist() == [0, 1]
    players = feature_players(["age", "x", "size", "y"], {"place": ["y", "x"], "age": ["age"]})
    assert players.names == ("place", "age")
    assert players.map.tolist() == [1, 0, -1, 0]


def test_some_players_of_many() -> None:
    players = grid_players(10, 10, box=(0, 0, 1, 0.5)).select([99, 3], "mask")
    assert players.names == ("row 10, column 10", "row 1, column 4")
    laid = players.over((20, 10))
    assert laid[9, 9] == 0 and laid[0, 3] == 1
    assert (laid[10:] == -1).all()
    assert (laid[:10] == -2).sum() == 98


PIXELS = torch.zeros(4, 4, dtype=torch.bool)
IDS = torch.tensor([[0, 1], [1, -1]])


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (r"every player somewhere, got c nowhere", lambda: Players(IDS, ("a", "b", "c"))),
        (r"players that have names, got ids -1 to 1 for 1 names", lambda: Players(IDS, ("a",))),
        (r"players that have names, got ids -3", lambda: Players(IDS - 2, ("a", "b"))),
        (r"at least one player, got none", lambda: Players(IDS, ())),
        (r"int64 map on the CPU, got torch.float32", lambda: Players(IDS.float(), ("a", "b"))),
        (r"map of shape \(4, 4\), got \(2, 2\)", lambda: Players(IDS, ("a", "b")).over((4, 4))),
        (r"\(height, width\) for a grid, got \(9,\)", lambda: grid_players(2, 2).over((9,))),
        (r"at least 3 x 4 pixels for the grid, got 2 x 9", lambda: grid_players(3, 4).over((2, 9))),
        (
            r"at least 2 x 2 pixels for the grid, got 4 x 1",
            lambda: grid_players(2, 2, box=(0, 0, 0.25, 1)).over((4, 4)),
        ),
        (r"rows and cols >= 1, got 0 x 3", lambda: grid_players(0, 3)),
        (r"box within \(0, 0, 1, 1\), got \(0, 0, 2, 1\)", lambda: grid_players(1, 1, box=(0, 0, 2, 1))),
        (r"box within .*, got \(0.5, 0, 0.5, 1\)", lambda: grid_players(1, 1, box=(0.5, 0, 0.5, 1))),
        (r'"keep" or "mask", got \'grey\'', lambda: grid_players(1, 1, background="grey")),  # type: ignore[arg-type]
        (r"at least one box, got none", lambda: box_players([])),
        (r"the size of the image, got boxes alone", lambda: box_players([(0, 0, 1, 1)])),
        (r"2 names, got 1", lambda: box_players([PIXELS, PIXELS], names=["a"])),
        (
            r"got box 1 and box 3 overlapping",
            lambda: box_players([(0, 0, 2, 2), (2, 2, 4, 4), (1, 1, 2, 2)], size=(4, 4)),
        ),
        (r"box 1 = .* empty", lambda: box_players([(2, 0, 2, 3)], size=(4, 4))),
        (r"box 2 = .* outside", lambda: box_players([(0, 0, 1, 1), (4, 0, 6, 3)], size=(4, 4))),
        (r"four finite numbers, got box 1", lambda: box_players([(0, 0, float("nan"), 3)], size=(4, 4))),
        (r"four finite numbers, got box 1", lambda: box_players([(0, 0, 3)], size=(4, 4))),
        (r"masks that hold pixels, got box 1 empty", lambda: box_players([PIXELS])),
        (r"masks of \(4, 4\), got box 2 of \(2, 4\)", lambda: box_players([~PIXELS, ~PIXELS[:2]])),
        (r"positions in the sentence, got \[8\]", lambda: token_players(WORDS, [1, 8])),
        (r"position 7 in 'cat \[PAD\]' and '\[PAD\]'", lambda: token_players(WORDS, [[2, 7], -1])),
        (r"at least one player, got none", lambda: token_players(["[CLS]"])),
        (r"got player 2 nowhere", lambda: token_players(WORDS, [1, []])),
        (r"groups of the columns, got y", lambda: feature_players(["x"], {"a": ["y"]})),
        (r"position 0 in 'a' and 'b'", lambda: feature_players(["x"], {"a": ["x"], "b": ["x"]})),
        (r"different names, got x twice", lambda: feature_players(["x", "x"])),
        (r"different players, got \[1, 1\]", lambda: grid_players(2, 2).select([1, 1])),
        (r"different players, got \[4\]", lambda: grid_players(2, 2).select([4])),
    ],
)
def test_errors_say_what_was_expected(words: str, call: object) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]
