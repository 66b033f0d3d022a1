"""Interactions as shapiq's `InteractionValues`, for its plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from pyinterp.errors import explain
from pyinterp.interactions.subsets import check_values, players_in
from pyinterp.models.packages import require

if TYPE_CHECKING:
    from shapiq import InteractionValues

_PER_SET = ("Moebius", "SII", "STII", "FSII")
_PER_PLAYER = ("SV", "BV")


def to_shapiq(interactions: Tensor, index: str = "Moebius") -> InteractionValues:
    """Hand interactions to shapiq, which plots them.

    Args:
        interactions: (2^n,) AND interactions (`harsanyi_and`) or an index (`sii`, `stii`, `fsii`) of one game; (n,) for
            `shapley` and `banzhaf`.
        index: What they are, by shapiq's names: "Moebius" for AND interactions, "SII", "STII", "FSII", "SV", "BV".

    Returns:
        ``shapiq.InteractionValues`` with all sets whose interaction is not zero; the baseline is the entry of the
        empty set (zero for "SV" and "BV").

    Raises:
        ImportError: shapiq is not installed.
        ValueError: The shape does not fit, `index` is unknown, or NaN or infinity is among the numbers.
        TypeError: `interactions` holds no floating-point numbers.
    """
    if index not in (*_PER_SET, *_PER_PLAYER):
        fix = "Name what the numbers are."
        raise ValueError(explain("to_shapiq", f"one of {', '.join(_PER_SET + _PER_PLAYER)}", index, fix))
    if interactions.dim() != 1:
        fix = "Convert the games of a batch one by one."
        raise ValueError(explain("to_shapiq", "the numbers of one game", tuple(interactions.shape), fix))
    shapiq = require("shapiq", "to_shapiq")
    numbers = interactions.detach().double().cpu()
    found: dict[tuple[int, ...], float]
    if index in _PER_PLAYER:
        n, first = len(numbers), 0.0
        found = {(player,): value for player, value in enumerate(numbers.tolist())}
    else:
        n, first = check_values("to_shapiq", interactions, "interactions"), float(numbers[0])
        codes = numbers.nonzero().flatten()
        found = {
            players_in(code): value
            for code, value in zip(codes.tolist(), numbers[codes].tolist(), strict=True)
        }
    return shapiq.InteractionValues(
        found,
        index=index,
        n_players=n,
        min_order=1 if index in _PER_PLAYER else 0,
        max_order=max((len(players) for players in found), default=1),
        estimated=False,
        baseline_value=first,
    )
