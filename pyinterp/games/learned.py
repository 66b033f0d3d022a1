"""A learned baseline: the one under which a game has the weakest interactions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.games.forward import full_float32, is_channels_last
from pyinterp.games.image import ImageGame
from pyinterp.games.masking import Baseline, make_baseline
from pyinterp.games.players import Players, require_players
from pyinterp.games.scores import Score, Scorer
from pyinterp.memory import is_out_of_memory
from pyinterp.models import LoadedModel
from pyinterp.models.gradients import with_gradients
from pyinterp.models.graph import logits_of
from pyinterp.ops.mask_inputs import mask_inputs
from pyinterp.ops.subset_sum import subset_sum
from pyinterp.progress import Progress, Ticker

MOST_LEARNED = 16


@with_gradients
def learn_baseline(
    model: nn.Module | LoadedModel,
    image: Any,
    players: Players,
    *,
    target: int | None = None,
    score: Score = "log_odds",
    start: Baseline = "zero",
    steps: int = 50,
    rate: float = 0.01,
    reach: float = 0.1,
    batch_size: int = 32,
    progress: Progress = None,
) -> Tensor:
    """Find the baseline that minimises the strength of the AND interactions, sum over non-empty S of |I(S)|.

    What is learned is one colour per player: (C, n) numbers, each between the least and the largest value of its
    channel in the image, and not further from the mean of ``start`` over the player's pixels, where it starts, than
    ``reach`` times this range: with no such bound it would go where nothing is absent, to the image itself. Adam
    follows the gradient through the network, in steps of ``rate`` times the range that fall to a tenth of that. The
    best baseline on the way is the answer. A step costs 2^n forwards and as many forwards with their backwards.

    Args:
        model: As the next five, see `ImageGame`.
        image: See `ImageGame`.
        players: See `ImageGame`; at most 16.
        target: See `ImageGame`.
        score: See `ImageGame`.
        start: As ``baseline`` of `ImageGame`. What is always masked stays as it is there.
        steps: How many; 0 gives the start.
        rate: Of the first step, as a part of the range of each channel.
        reach: How far a colour may go, as a part of the range of its channel.
        batch_size: Images per forward; halved where memory runs out.
        progress: See `Game.values`; counts forwards.

    Returns:
        (C, H, W), a baseline for `ImageGame`. Ctrl-C ends the search early and gives the best one so far.

    Raises:
        ValueError: Too many players, a number that makes no sense, NaN or infinite scores, or what `ImageGame`
            refuses.

    Source: Ren et al., "Defining and Quantifying the Emergence of Sparse Concepts in DNNs", CVPR 2023, where every
    pixel has its own value and the rate is 1e-3.
    """
    players = require_players("learn_baseline", players, "grid_players(3, 4)")
    if players.count > MOST_LEARNED:
        got = f"{players.count}, which take {(2 * steps + 1) * 2**players.count:,} forwards"
        fix = "Use fewer players, for example the most relevant ones (relevant_players)."
        raise ValueError(explain("learn_baseline", f"at most {MOST_LEARNED} players", got, fix))
    if steps < 0 or not 0 < rate < math.inf or not 0 < reach <= 1 or batch_size < 1:
        wanted = "steps >= 0, rate > 0, reach within (0, 1] and batch_size >= 1"
        got = f"steps={steps}, rate={rate}, reach={reach}, batch_size={batch_size}"
        raise ValueError(explain("learn_baseline", wanted, got, "The defaults are 50, 0.01, 0.1 and 32."))
    game = ImageGame(model, image, players, target=target, score=score, baseline=start)
    ticker = Ticker(progress, (2 * steps + 1) * 2**players.count, 0, "subsets")
    strengths = _Strengths(game, players, Scorer(score, game.target), start, batch_size, ticker)
    first = strengths.start()
    nearest, furthest = (first - reach).clamp_min(0), (first + reach).clamp_max(1)
    shares = first.clone().requires_grad_()
    optimiser = torch.optim.Adam([shares], lr=rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.1 ** (1 / max(steps, 1)))
    best, least = shares.detach().clone(), math.inf
    step = 0
    try:
        with full_float32(False), torch.autocast(game.device.type, enabled=False):
            for step in range(steps + 1):
                strength, slopes = strengths.measure(shares)
                if strength < least:
                    best, least = shares.detach().clone(), strength
                if step < steps:
                    shares.grad = strengths.gradient(shares, slopes)
                    optimiser.step()
                    schedule.step()
                    with torch.no_grad():
                        shares.clamp_(nearest, furthest)
    except KeyboardInterrupt:
        fix = "The baseline is the best one so far."
        warnings.warn(explain("learn_baseline", f"{steps} steps", f"Ctrl-C after {step}", fix), stacklevel=3)
    finally:
        ticker.close()
    return strengths.baseline(best).detach()


class _Strengths:
    """The strength of the interactions of a game as a function of its players' colours.

    Colours are (C, n) shares of the channels' ranges in the image: 0 is the least value, 1 the largest.
    """

    def __init__(
        self,
        game: ImageGame,
        players: Players,
        scorer: Scorer,
        start: Baseline,
        batch_size: int,
        ticker: Callable[[int], None],
    ) -> None:
        self._model, self._score, self._ticker = game.model, scorer, ticker
        self._image = game.image.clone() if game.image.is_inference() else game.image
        self._around = make_baseline(self._image, start)
        self._players = players.over(tuple(self._image.shape[1:])).to(self._image.device)
        self._codes = torch.arange(2**players.count, device=self._image.device)
        self._bits = 2 ** torch.arange(players.count, device=self._image.device)
        wide = torch.promote_types(self._image.dtype, torch.float32)
        self._low = self._image.amin((1, 2)).to(wide)[:, None]
        self._width = self._image.amax((1, 2)).to(wide)[:, None] - self._low
        self._batch_size = batch_size
        self._layout = torch.channels_last if is_channels_last(game.model) else torch.contiguous_format

    def start(self) -> Tensor:
        """Shares (C, n) of the mean of the first baseline over each player's pixels."""
        played = self._players >= 0
        member = torch.nn.functional.one_hot(self._players[played]).to(self._low)
        means = self._around[:, played].to(self._low) @ member / member.sum(0)
        return ((means - self._low) / self._width.clamp_min(1e-12)).clamp(0, 1)

    def baseline(self, shares: Tensor) -> Tensor:
        """(C, H, W): every player in its colour."""
        colours = (self._low + shares * self._width).to(self._around.dtype)
        return torch.where(self._players >= 0, colours[:, self._players.clamp(min=0)], self._around)

    def measure(self, shares: Tensor) -> tuple[float, Tensor]:
        """The strength, and its slope by each of the 2^n scores."""
        baseline = self.baseline(shares).detach()
        scores: list[Tensor] = []

        def work(codes: Tensor) -> None:
            with torch.no_grad():
                images = mask_inputs(self._image, baseline, self._players, codes, memory_format=self._layout)
                scores.append(self._score(logits_of(self._model(images))))

        self._in_batches(work)
        values = torch.cat(scores).requires_grad_()
        strength = subset_sum(values, inverse=True)[1:].abs().sum()
        if not strength.isfinite():
            fix = "Check the model's weights and the image."
            raise ValueError(explain("learn_baseline", "finite scores", "NaN or infinity", fix))
        return float(strength.detach()), torch.autograd.grad(strength, values)[0]

    def gradient(self, shares: Tensor, slopes: Tensor) -> Tensor:
        """The gradient of the strength by the shares, one batch of subsets after another."""
        total = torch.zeros_like(shares)

        def work(codes: Tensor) -> None:
            present = (codes[:, None] & self._bits != 0)[:, self._players.clamp(min=0)]
            shown = torch.where(self._players >= 0, present, self._players == -1)
            images = torch.where(shown[:, None], self._image, self.baseline(shares))
            scores = self._score(logits_of(self._model(images.contiguous(memory_format=self._layout))))
            total.add_(torch.autograd.grad(scores, shares, slopes[codes].to(scores.dtype))[0])

        self._in_batches(work)
        return total

    def _in_batches(self, work: Callable[[Tensor], None]) -> None:
        done = 0
        while done < len(self._codes):
            codes = self._codes[done : done + self._batch_size]
            try:
                work(codes)
            except Exception as error:
                if not is_out_of_memory(error) or self._batch_size == 1:
                    raise
                self._batch_size //= 2
                continue
            done += len(codes)
            self._ticker(len(codes))
