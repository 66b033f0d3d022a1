"""A game as a `shapiq.Game`, so that its approximators run on it where 2^n subsets are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pyinterp.models.packages import require

if TYPE_CHECKING:
    from shapiq import Game as ShapiqGame

    from pyinterp.games.game import Game


def as_shapiq(game: Game, batch_size: int | None = None) -> ShapiqGame:
    """Wrap a game for shapiq.

    Its ``value_function`` takes bool coalitions (M, n) and gives float64 scores (M,), evaluated in batches. It is not
    normalised: v of the empty coalition stays what it is.

    Args:
        game: With up to 62 players.
        batch_size: Subsets per forward; None finds it by measuring, each time.

    Raises:
        ImportError: shapiq is missing; the command that installs it is named.
    """
    shapiq = require("shapiq", "as_shapiq")

    class Wrapped(shapiq.Game):  # type: ignore[name-defined]
        def value_function(self, coalitions: Any) -> Any:
            present = torch.as_tensor(coalitions, dtype=torch.int64)
            codes = (present << torch.arange(game.count)).sum(1)
            return game.evaluate_many(codes, batch_size=batch_size).double().numpy()

    names = list(game.names) if len(set(game.names)) == game.count else None
    return Wrapped(n_players=game.count, normalize=False, player_names=names)
