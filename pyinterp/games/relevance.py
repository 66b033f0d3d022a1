"""The few of many players that matter most to a network, for games that can't have them all."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pyinterp.errors import explain
from pyinterp.games.image import ImageGame
from pyinterp.games.masking import Baseline
from pyinterp.games.players import Background, Players, require_players
from pyinterp.games.scores import Score
from pyinterp.models import LoadedModel
from pyinterp.ops.mask_inputs import MOST_PLAYERS


def relevant_players(
    model: nn.Module | LoadedModel,
    image: Any,
    players: Players,
    n: int,
    *,
    target: int | None = None,
    score: Score = "log_odds",
    baseline: Baseline = "zero",
    background: Background = "keep",
    batch_size: int | None = None,
) -> Players:
    """The `n` players without which the score changes most: largest |v(N) - v(N \\ {i})|.

    One forward per player, where the game itself needs 2^n.

    Args:
        model: As the next five, see `ImageGame`.
        image: See `ImageGame`.
        players: Any number, for example ``grid_players(14, 14)``.
        n: How many of them to take.
        target: See `ImageGame`.
        score: See `ImageGame`.
        baseline: See `ImageGame`.
        background: What the others become: "keep" shows them always, "mask" never.
        batch_size: Images per forward; None finds it by measuring.

    Returns:
        These players, in the order in which they were, under their names.

    Raises:
        ValueError: `n` is not between 1 and the number of players; NaN or infinite scores; what `ImageGame` refuses.
        TypeError: Something of another type.

    Source: occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014).
    """
    players = require_players("relevant_players", players, "grid_players(14, 14)")
    if not 1 <= n <= players.count:
        fix = "Ask for fewer, or make more players."
        raise ValueError(explain("relevant_players", f"1 to {players.count} of the players", n, fix))
    changes = []
    for part in torch.arange(players.count).split(MOST_PLAYERS):
        few = players.select(part.tolist(), "keep")
        game = ImageGame(model, image, few, target=target, score=score, baseline=baseline)
        everyone = 2**few.count - 1
        codes = torch.tensor([everyone, *(everyone - 2**i for i in range(few.count))])
        scores = game.evaluate_many(codes, batch_size=batch_size)
        changes.append((scores[1:] - scores[0]).abs())
    chosen = torch.cat(changes).argsort(descending=True, stable=True)[:n]
    return players.select(sorted(chosen.tolist()), background)
