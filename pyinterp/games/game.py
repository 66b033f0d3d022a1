"""Game: players, a score for every subset of them, and the scores of all 2^n subsets."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.games.checkpoint import Scores
from pyinterp.games.checks import require_batch_size
from pyinterp.games.evaluate import Evaluation, Worker, evaluate_in_batches
from pyinterp.games.noise import Noise, measure_noise
from pyinterp.games.scores import checked_scores
from pyinterp.games.values import GameValues
from pyinterp.memory import free_bytes, reused_memory
from pyinterp.models.identity import digest_of
from pyinterp.ops.mask_inputs import MOST_PLAYERS
from pyinterp.progress import Progress, Ticker

if TYPE_CHECKING:
    from shapiq import Game as ShapiqGame

Device = str | torch.device


class Game(ABC):
    """n players and a score for every subset of them. A game of your own needs `evaluate`.

    Args:
        names: Of the n players, 1 to 62.

    Attributes:
        names: As given.
        device: Where scores come from and where `values` lie.
        dtype: Of the scores.
        score_shape: Of the score of one subset: () for a number. Where it is another, the scores of B subsets are
            (B, *score_shape).
    """

    device = torch.device("cpu")
    dtype = torch.float32
    score_shape: tuple[int, ...] = ()

    def __init__(self, names: Sequence[str]) -> None:
        if not 1 <= len(names) <= MOST_PLAYERS:
            fix = "Choose the most relevant parts with relevant_players, or make larger parts."
            got = str(len(names))
            if names:
                got += f", which would take 2^{len(names)} = {2.0 ** len(names):.3g} forwards"
            raise ValueError(explain("Game", f"1 to {MOST_PLAYERS} players", got, fix))
        self.names = tuple(names)

    @property
    def count(self) -> int:
        """How many players there are, n."""
        return len(self.names)

    @abstractmethod
    def evaluate(self, codes: Tensor) -> Tensor:
        """Scores (B,) of the subsets (B,) int64, as one batch; bit i of a code says that player i is present."""

    def values(
        self,
        *,
        batch_size: int | None = None,
        checkpoint: str | PathLike[str] | None = None,
        devices: Sequence[Device] | None = None,
        max_players: int = 20,
        progress: Progress = None,
    ) -> Tensor:
        """Evaluate all subsets.

        Args:
            batch_size: Subsets per forward. None finds the fastest by measuring, in what memory there is. Where memory
                runs out, batches are halved and the work goes on.
            checkpoint: A file that holds the scores so far, brought up to date every half minute, at the end and after
                an error or Ctrl-C. If it exists, only what it lacks is evaluated.
            devices: Share the work between these, a copy of the network on each, e.g. ``["cuda:0", "cuda:1"]``.
            max_players: With more players the 2^n forwards are refused.
            progress: None shows a bar on a terminal; True, False, or a callable that gets {"done", "total", "seconds"}.

        Returns:
            (2^n, *score_shape) on the game's device; bit i of an index says that player i is present.

        Equivalent to ``torch.cat([evaluate(c) for c in torch.arange(2**n).split(batch_size)])``.

        Raises:
            ValueError: Too many players (it says how many forwards and bytes, how long, and what to do instead); NaN or
                infinite scores (it says of which subsets), or not one for each; a checkpoint that is damaged or of
                another game; no such device.
            TypeError: `batch_size` or `progress` is something else.
            MemoryError: There is too little memory for one subset.
        """
        with self._settings():
            scores, _ = self._play(batch_size, checkpoint, devices, max_players, progress)
        _warn_constant(scores.values, 0.0, 3)
        return scores.values.to(self.device)

    def play(
        self,
        *,
        batch_size: int | None = None,
        checkpoint: str | PathLike[str] | None = None,
        devices: Sequence[Device] | None = None,
        max_players: int = 20,
        progress: Progress = None,
        noise_samples: int = 64,
        seed: int = 0,
    ) -> GameValues:
        """Evaluate all subsets, and measure the numerical noise of a score on some of them.

        Args:
            batch_size: As the next four, see `values`.
            checkpoint: See `values`.
            devices: See `values`.
            max_players: See `values`.
            progress: See `values`.
            noise_samples: Subsets that are evaluated twice more: in batches of another order and size, and in higher
                precision (float64 for a float32 network, float32 for a half-precision one).
            seed: Chooses these.

        Raises:
            ValueError: As `values`.
            TypeError: As `values`.
            MemoryError: As `values`.
        """
        start = time.perf_counter()
        values, noise, size, forwards = self._measured(
            batch_size, checkpoint, devices, max_players, progress, noise_samples, seed
        )
        return GameValues(
            values=values.to(self.device),
            noise=float(noise.sigma),
            noise_order=float(noise.order),
            noise_precision=None if noise.precision is None else float(noise.precision),
            noise_samples=noise.samples,
            names=self.names,
            batch_size=size,
            forwards=forwards,
            seconds=time.perf_counter() - start,
            digest=digest_of(self.identity()),
            **self._played(),
        )

    def _measured(
        self,
        batch_size: int | None,
        checkpoint: str | PathLike[str] | None,
        devices: Sequence[Device] | None,
        max_players: int,
        progress: Progress,
        noise_samples: int,
        seed: int,
    ) -> tuple[Tensor, Noise, int, int]:
        """All scores (2^n, *score_shape) on the CPU, their noise, subsets per forward, and subsets evaluated."""
        if noise_samples < 2:
            fix = "For the scores without their noise, call values()."
            raise ValueError(explain("play", "noise_samples >= 2", noise_samples, fix))
        with self._settings():
            scores, evaluation = self._play(batch_size, checkpoint, devices, max_players, progress)
            forwards, size = evaluation.count, evaluation.batch_size or noise_samples
            noise = self._noise(scores.values, evaluation, size, noise_samples, seed)
        forwards += noise.samples * (1 + (noise.precision is not None))
        _warn_constant(scores.values, float(noise.sigma.max()), 4)
        return scores.values, noise, size, forwards

    def as_shapiq(self, *, batch_size: int | None = None) -> ShapiqGame:
        """This game as a `shapiq.Game`, for its approximators and indices; see `pyinterp.games.shapiq`."""
        from pyinterp.games.shapiq import as_shapiq

        return as_shapiq(self, batch_size)

    def evaluate_many(self, codes: Tensor, *, batch_size: int | None = None) -> Tensor:
        """Evaluate any subsets, in batches that fit.

        Args:
            codes: (M,) int64.
            batch_size: See `values`.

        Returns:
            (M,) on the CPU.

        Raises:
            ValueError: NaN or infinite scores.
            MemoryError: There is too little memory for one subset.
        """
        with self._settings():
            (worker,) = self._workers(None, 1)
            scores = evaluate_in_batches(worker, codes.cpu(), self.device, batch_size)
        self._require_finite(codes.cpu(), scores)
        return scores.to(self.dtype)

    def identity(self) -> dict[str, str]:
        """What tells this game from others, part by part: a checkpoint is taken only if all are equal."""
        return {"game": type(self).__qualname__, "players": repr(self.names)}

    def _settings(self) -> AbstractContextManager[None]:
        """What holds in the whole process while subsets are evaluated."""
        return nullcontext()

    def _workers(self, devices: Sequence[Device] | None, evaluations: int) -> list[Worker]:
        """One evaluator per device (None is the game's own), for so many subsets together."""
        if devices is not None:
            fix = "Leave devices out, or play an ImageGame, a TextGame or a FeatureGame."
            raise ValueError(explain("devices", "a game of a network", type(self).__qualname__, fix))
        name = f"{type(self).__qualname__}.evaluate"
        fix = "Return torch.stack or torch.tensor of the scores of all these subsets."

        def work(codes: Tensor) -> Tensor:
            scores = self.evaluate(codes.to(self.device))
            return checked_scores(name, "subset", scores, len(codes), fix)

        return [work]

    def _precise(self) -> Worker | str:
        """An evaluator in higher precision, or in words why there is none; "" if there is no need."""
        return "a game without a network of its own"

    def _order(self) -> Tensor:
        """(2^n,) all codes, in the order in which they are evaluated best."""
        return torch.arange(2**self.count)

    def _played(self) -> dict[str, Any]:
        """What `GameValues` says of the game."""
        name = type(self).__qualname__
        own = dict.fromkeys(("target_name", "score", "baseline", "masking"), "its own")
        return {"game": name, "target": None, "precision": str(self.dtype).removeprefix("torch."), **own}

    @reused_memory()
    def _play(
        self,
        batch_size: int | None,
        checkpoint: str | PathLike[str] | None,
        devices: Sequence[Device] | None,
        max_players: int,
        progress: Progress,
    ) -> tuple[Scores, Evaluation]:
        """All scores, and how they were evaluated."""
        require_batch_size(batch_size)
        self._require_feasible(max_players)
        order = self._order()
        identity = {} if checkpoint is None else self.identity()
        scores = Scores(len(order), self.dtype, identity, checkpoint, self.score_shape)
        todo = order[~scores.done[order]]
        ticker = Ticker(progress, len(order), len(order) - len(todo), "subsets")

        def keep(codes: Tensor, found: Tensor) -> None:
            finite = torch.isfinite(found).reshape(len(found), -1).all(1)
            scores.keep(codes[finite], found[finite])
            self._require_finite(codes, found)
            ticker(len(codes))

        try:
            workers = self._workers(devices, len(todo))
            device = self.device if devices is None else torch.device(devices[0])
            evaluation = Evaluation(workers, todo, keep, device, batch_size)
            evaluation.run()
        finally:
            ticker.close()
            scores.write()
        return scores, evaluation

    def _noise(
        self, values: Tensor, evaluation: Evaluation, batch_size: int, samples: int, seed: int
    ) -> Noise:
        generator = torch.Generator().manual_seed(seed)
        codes = torch.randperm(len(values), generator=generator)[:samples]
        again, device = evaluation.workers[0], evaluation.device
        return measure_noise(values, codes, again, self._precise(), device, batch_size)

    def _require_finite(self, codes: Tensor, scores: Tensor) -> None:
        bad = codes[~torch.isfinite(scores).reshape(len(codes), -1).all(1)].tolist()
        if bad:
            which = ", ".join(self._subset(code) for code in bad[:3])
            more = f" and {len(bad) - 3} more of this batch" if len(bad) > 3 else ""
            fix = "Check the network on these inputs; another baseline or a wider dtype may help."
            raise ValueError(explain("games", "finite scores", f"NaN or infinity for {which}{more}", fix))

    def _subset(self, code: int) -> str:
        """A subset in words."""
        names = [name for i, name in enumerate(self.names) if code >> i & 1]
        if len(names) == self.count:
            return f"all {self.count} players"
        return "{" + "; ".join(names[:6]) + (f"; and {len(names) - 6} more" if len(names) > 6 else "") + "}"

    def _require_feasible(self, max_players: int) -> None:
        """Raise if all subsets are more than patience or memory allow; say what they would cost."""
        total = 2**self.count
        size = total * (self.dtype.itemsize + 9)  # a score, a flag and a code each
        free = free_bytes(torch.device("cpu"))
        fits = free is None or size < free
        if self.count <= max_players and fits:
            return
        codes = torch.randint(total, (8,), generator=torch.Generator().manual_seed(0))
        (worker,) = self._workers(None, 1)
        worker(codes)
        start = time.perf_counter()
        worker(codes).cpu()
        seconds = (time.perf_counter() - start) / len(codes) * total
        limit = (
            f"at most {max_players} players" if self.count > max_players else "scores that fit into memory"
        )
        got = f"{self.count} players: {total:,} forwards, about {duration(seconds)}, and {_bytes(size)} for the scores"
        fix = (
            "Use fewer players, for example the most relevant ones (relevant_players), or as_shapiq() with one of "
            "shapiq's approximators."
        )
        if fits:
            fix += f" max_players={self.count} insists."
        raise ValueError(explain("games", limit, got, fix))


def _warn_constant(values: Tensor, noise: float, stacklevel: int) -> None:
    """Warn if no player matters: the scores of all subsets are one number, but for noise."""
    spread = float((values.amax(0) - values.amin(0)).max())
    if spread <= 2 * noise:
        got = f"the same one, {float(values.flatten()[0]):.4g}, for all {len(values)} subsets"
        fix = "There is nothing to explain: check target, score and baseline, and that the players are in the image."
        warnings.warn(explain("games", "scores that depend on the players", got, fix), stacklevel=stacklevel)


def duration(seconds: float) -> str:
    """Seconds in words."""
    for unit, length in (("years", 31_557_600), ("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _bytes(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.0f} PiB"
