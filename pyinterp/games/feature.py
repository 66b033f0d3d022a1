"""FeatureGame: the columns of one row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.games.checks import require_tensor
from pyinterp.games.forward import Forward, MaskedForward
from pyinterp.games.network import NetworkGame, as_module
from pyinterp.games.players import Players, feature_players, require_players
from pyinterp.games.scores import Score
from pyinterp.models.identity import tensor_digest
from pyinterp.models.inputs import place_of


class FeatureGame(NetworkGame):
    """The score of a class when a network knows only some features.

    Args:
        model: Maps rows (N, D) to logits (N, classes), in eval mode.
        x: (D,), one row.
        baseline: (D,), what stands for absent features, for example their mean over the data.
        players: See `feature_players`; None makes each column a player.
        target: The class; None is the one predicted for the row.
        score: See `ImageGame`.
        allow_tf32: See `ImageGame`.

    Raises:
        ValueError: The players or the baseline do not fit the row, there is no such class or score, the model is in
            train mode or its answer is not finite.
        TypeError: Something of another type.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        baseline: Tensor,
        players: Players | None = None,
        *,
        target: int | None = None,
        score: Score = "log_odds",
        allow_tf32: bool = False,
    ) -> None:
        network = as_module("FeatureGame", model)
        device, dtype = place_of(network)
        for value in (x, baseline):
            fix = "torch.as_tensor makes one of an array or a list."
            require_tensor("FeatureGame", "x and baseline as tensors (D,)", value, fix)
        if x.dim() != 1 or baseline.shape != x.shape:
            got = f"{tuple(x.shape)} and {tuple(baseline.shape)}"
            fix = "Pass one row of the table, and one number per column as the baseline."
            raise ValueError(explain("FeatureGame", "x and baseline of shape (D,)", got, fix))
        self.x, self.baseline = (value.detach().to(device, dtype) for value in (x, baseline))
        if not (self.x.isfinite().all() and self.baseline.isfinite().all()):
            raise ValueError(explain("FeatureGame", "finite features", "NaN or infinity", "Fill them in."))
        if players is None:
            players = feature_players([f"column {i}" for i in range(len(x))])
        players = require_players("FeatureGame", players, "feature_players(names)")
        self._map = players.over(tuple(x.shape))
        super().__init__(
            players.names,
            network,
            lambda own: own(self.x[None]),
            given=f"a row of shape {tuple(self.x[None].shape)}",
            target=target,
            score=score,
            allow_tf32=allow_tf32,
        )

    def _forward(self, model: nn.Module) -> Forward:
        device, dtype = place_of(model)
        return MaskedForward(
            model, self.x.to(device, dtype), self.baseline.to(device, dtype), self._map.to(device)
        )

    def _parts(self) -> Mapping[str, str]:
        parts = {"x": self.x, "player map": self._map, "baseline": self.baseline}
        return {name: tensor_digest(value) for name, value in parts.items()}

    def _played(self) -> dict[str, Any]:
        return {**super()._played(), "baseline": "given", "masking": "replace"}
