"""LayerGame: the score of every layer of a network that sees only some parts of an image, from one forward."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor

from pyinterp.games.image import ImageGame
from pyinterp.games.masking import Baseline
from pyinterp.games.players import Players
from pyinterp.games.scores import Scorer
from pyinterp.knowledge.probes import Probes
from pyinterp.progress import Progress


@dataclass(frozen=True)
class LayerScorer(Scorer):
    """The score of one class at each of L layers: logits (B, L K) -> (B, L)."""

    layers: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.layers,)

    def __call__(self, logits: Tensor) -> Tensor:
        own = Scorer(self.score, self.target)
        return torch.stack([own(part) for part in logits.chunk(self.layers, 1)], 1)


@dataclass(frozen=True, eq=False)
class LayerValues:
    """The scores of all subsets at each layer.

    Attributes:
        values: (L, 2^n), on the CPU; bit i of an index says that player i is present.
        sigma: (L,) float64, standard deviation of the numerical error of one score; see `Noise`.
        forwards: Masked images evaluated.
        seconds: It took.
    """

    values: Tensor
    sigma: Tensor
    forwards: int
    seconds: float


class LayerGame(ImageGame):
    """The log-odds of a class by the probe of each layer, and by the network itself, on a masked image.

    Scores are (B, L): one forward gives those of all layers, and nothing else of it is kept.

    Args:
        probes: From `fit_probes`.
        image: (C, H, W) or (1, C, H, W), preprocessed.
        players: See `ImageGame`.
        label: The class, counted as by the probes.
        score: "log_odds", "logit" or "probability"; see `Scorer`.
        baseline: See `ImageGame`.
        allow_tf32: See `ImageGame`.
        shared_prefix: See `ImageGame`.

    Attributes:
        layers: L names.
    """

    def __init__(
        self,
        probes: Probes,
        image: Tensor,
        players: Players,
        label: int,
        *,
        score: str = "log_odds",
        baseline: Baseline = "zero",
        allow_tf32: bool = False,
        shared_prefix: bool = True,
    ) -> None:
        self.layers = probes.names
        super().__init__(
            probes.network(),
            image,
            players,
            target=label,
            score=LayerScorer(score, label, len(self.layers)),
            baseline=baseline,
            allow_tf32=allow_tf32,
            shared_prefix=shared_prefix,
        )

    def _parts(self) -> Mapping[str, str]:
        return {**super()._parts(), "layers": repr(self.layers)}

    def play_layers(
        self,
        *,
        batch_size: int | None = None,
        checkpoint: str | PathLike[str] | None = None,
        devices: Sequence[str | torch.device] | None = None,
        max_players: int = 20,
        progress: Progress = None,
        noise_samples: int = 64,
        seed: int = 0,
    ) -> LayerValues:
        """All subsets at all layers, and their noise; for the arguments see `Game.play`."""
        start = time.perf_counter()
        values, noise, _, forwards = self._measured(
            batch_size, checkpoint, devices, max_players, progress, noise_samples, seed
        )
        return LayerValues(values.T.contiguous(), noise.sigma, forwards, time.perf_counter() - start)
