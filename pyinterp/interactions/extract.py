"""``extract_interactions``: an image in, the AND and OR effects of its parts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.games.players import Players
from pyinterp.interactions.and_or import SparseAndOr, sparse_and_or
from pyinterp.interactions.interactions import Interactions
from pyinterp.version import package_version


def interactions_from_values(
    values: Tensor,
    players: Players | Sequence[str] | None = None,
    *,
    noise: float = 0.04,
    sigma: float | None = None,
    pixels: Tensor | None = None,
    solution: SparseAndOr | None = None,
    **facts: Any,
) -> Interactions:
    """The interactions of scores that are there already.

    Args:
        values: (2^n,) the score of every subset: bit i of an index says that player i is present.
        players: Who plays, or n names; "player 1", "player 2", ... by default.
        noise: Bound of what the split may leave unexplained of each score, as a share of |v(N) - v(empty)|.
        sigma: Standard deviation of the numerical error of one score, for the noise floors; None: not measured.
        pixels: (3, H, W) uint8, the image, for reports.
        solution: What `sparse_and_or` gave for these scores, if it is there already.
        **facts: Further fields of `Interactions`: ``model_name="resnet50"``, ``class_name="tabby"``, ...

    Raises:
        ValueError: The scores are not 2^n finite numbers, or not of so many players.
    """
    size = values.shape[-1] if values.dim() else 0
    if values.dim() != 1 or size < 2 or size & (size - 1):
        fix = "Pass one score for each subset."
        raise ValueError(
            explain("interactions_from_values", "values (2^n,), n >= 1", tuple(values.shape), fix)
        )
    count = size.bit_length() - 1
    names = players.names if isinstance(players, Players) else players
    names = tuple(f"player {i + 1}" for i in range(count)) if names is None else tuple(names)
    if len(names) != count:
        fix = "Pass one name for each player, or the players of these scores."
        raise ValueError(explain("interactions_from_values", f"{count} players", len(names), fix))
    laid = None
    if isinstance(players, Players):
        shape = players.map.shape if pixels is None else pixels.shape[-players.map.dim() :]
        laid = players.over(tuple(shape))
    split = sparse_and_or(values, noise=noise) if solution is None else solution
    return Interactions(
        values=values.detach().cpu(),
        and_=split.and_.detach().cpu(),
        or_=split.or_.detach().cpu(),
        player_names=names,
        player_map=laid,
        pixels=None if pixels is None else pixels.cpu(),
        noise=noise,
        objective=float(split.objective),
        gap=float(split.gap),
        converged=bool(split.converged),
        sigma=sigma,
        versions=_versions(),
        **facts,
    )


def _versions() -> Mapping[str, str]:
    return {"pyinterp": package_version(), "torch": torch.__version__}
