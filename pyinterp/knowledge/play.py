"""Games of many images: the scores of all subsets, their noise, and the AND and OR effects of them all in one batch."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.games.image import ImageGame
from pyinterp.games.masking import make_baseline
from pyinterp.games.players import Players
from pyinterp.games.scores import make_scorer
from pyinterp.interactions import sparse_and_or
from pyinterp.interactions.subsets import subset_sizes
from pyinterp.knowledge.files import make_folder
from pyinterp.knowledge.layer_game import LayerGame
from pyinterp.knowledge.layer_knowledge import LayerKnowledge
from pyinterp.knowledge.taps import two_logits
from pyinterp.models.graph import logits_of
from pyinterp.models.identity import digest_of
from pyinterp.models.inputs import call
from pyinterp.progress import Progress, Ticker
from pyinterp.version import package_version

DRAWS = 5
"""Of input noise, at least."""
Make = Callable[[int, Tensor], Sequence[ImageGame]]
"""The number of an image and its pixels -> the games that are played on it."""


def play_images(
    make: Make,
    images: Sequence[Tensor],
    *,
    start: float,
    noise: float,
    draws: int,
    input_noise: float,
    folder: Path | None,
    files: Sequence[str],
    seed: int,
    progress: Progress,
    how: Mapping[str, Any],
    **known: Any,
) -> LayerKnowledge:
    """Play the games of all images, and those of their noisy copies.

    Args:
        make: Called with a copy of an image for each draw, too.
        images: M of them, (C, H, W).
        start: time.perf_counter() when the work began.
        noise: See `sparse_and_or`.
        draws: Copies of each image with Gaussian noise; 0, or 5 and more.
        input_noise: Standard deviation of that.
        folder: Where scores are kept.
        files: A name per image, to tell its scores from others there.
        seed: Of the noise.
        progress: Of all games together.
        how: Arguments of `Game.play`.
        known: The attributes of the result that games don't tell.

    Raises:
        ValueError: As `Game.play`.
    """
    if folder is not None:
        make_folder(folder)
    first = make(0, images[0])
    subsets = 2 ** first[0].count
    ticker = Ticker(progress, len(images) * (1 + draws) * len(first) * subsets, 0, "masked images")
    values, sigmas, spreads, forwards = [], [], [], 0

    def played(i: int, image: Tensor, name: str, measure: bool) -> list[tuple[Tensor, Tensor, int]]:
        found = []
        for j, game in enumerate(make(i, image)):
            kept = None
            if folder is not None:  # other settings have other files
                parts = {**game._parts(), "settings": f"{game.names} {game.score_shape} {game._scorer.name}"}
                kept = folder / f"game-{name}-{j}-{digest_of(parts)[:10]}.safetensors"
            with _counting(ticker, subsets) as told:
                found.append(_scores(game, measure, seed, checkpoint=kept, progress=told, **how))
        return found

    with closing(ticker):
        for i, (image, name) in enumerate(zip(images, files, strict=True)):
            plain = played(i, image, name, True)
            values.append(torch.cat([one[0] for one in plain]))
            sigmas.append(torch.cat([one[1] for one in plain]))
            noisy = []
            for draw in range(draws):
                generator = torch.Generator().manual_seed(_number(f"{seed} {name} {draw}"))
                shift = torch.randn(image.shape, generator=generator, dtype=torch.float64).to(image)
                again = played(i, image + input_noise * shift, f"{name}-{draw}", False)
                noisy.append(torch.cat([one[0] for one in again]))
                plain += again
            forwards += sum(one[2] for one in plain)
            if draws:
                effects, _ = split_effects(torch.stack(noisy), noise)
                spreads.append(torch.stack([effects.mean(0), effects.std(0)], -1))
    together = torch.stack(values)
    effects, gap = split_effects(together, noise)
    spread = torch.stack(spreads) if spreads else None
    return LayerKnowledge(
        effects=effects,
        values=together,
        sigma=torch.stack(sigmas),
        gap=gap,
        player_names=first[0].names,
        spread=spread,
        draws=draws,
        input_noise=input_noise if draws else 0.0,
        noise=noise,
        forwards=forwards,
        seconds=time.perf_counter() - start,
        versions={"pyinterp": package_version(), "torch": torch.__version__},
        **known,
    )


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """(M,) classes that a network gives images (M, C, H, W); of a single logit, 1 where it is above 0."""
    logits = _logits(model, images)
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def mean_logits(model: nn.Module, images: Tensor) -> Tensor:
    """(M,) float64 mean over a network's logits for images (M, C, H, W); of a single logit z, that of (0, z)."""
    return two_logits(_logits(model, images)).mean(1, dtype=torch.float64)


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([logits_of(call(model, some)).cpu() for some in images.split(64)])


def require_game(where: str, score: Any, baseline: Any, batch_size: Any) -> None:
    """Raise ValueError or TypeError for what `ImageGame` would refuse, before probes are fitted.

    The game of each layer has a scorer of its own, so no other place looks at the name of the score.
    """
    if isinstance(score, str) or not callable(score):
        make_scorer(where, score, 0, torch.zeros(1, 2))
    if isinstance(baseline, str):
        make_baseline(torch.zeros(1, 1, 1), baseline)
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise ValueError(
            explain(where, "batch_size of 1 or more", repr(batch_size), "Leave it out to measure.")
        )


def require_settings(
    where: str, players: Players, max_players: int, draws: Any, input_noise: float, threshold: Any
) -> None:
    """Raise ValueError for what would be refused only after the probes, or not at all."""
    count = len(players.names)
    if count > max_players:
        fix = "Use fewer players, or raise max_players."
        got = f"{count}, whose 2^{count} subsets take as many forwards of each image"
        raise ValueError(explain(where, f"at most {max_players} players", got, fix))
    if type(draws) is not int or draws < 0 or 0 < draws < DRAWS:
        fix = "Fewer say little of a spread: ask for 10, or for 0 to leave stability out."
        raise ValueError(explain(where, f"draws of 0 or at least {DRAWS}", draws, fix))
    if draws and not 0 < input_noise < math.inf:
        raise ValueError(explain(where, "input_noise > 0", input_noise, "Try 0.02."))
    if isinstance(threshold, bool) or not (isinstance(threshold, (int, float)) and 0 <= threshold <= 1):
        raise ValueError(explain(where, "a threshold from 0 to 1", threshold, "Try 0.05."))


def split_effects(values: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """AND and OR effects (..., 2, 2^n) of scores (..., 2^n), all solved in one batch, and the gaps (...).

    Single players have one effect, told as AND: for one player both are the same function.
    """
    found = sparse_and_or(values, noise)
    single = subset_sizes(values.shape[-1].bit_length() - 1) == 1
    and_, or_ = found.and_ + found.or_ * single, found.or_ * ~single
    return torch.stack([and_, or_], -2), found.gap


def _number(words: str) -> int:
    """A seed of its own for each text."""
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:7], "big")


def _scores(game: ImageGame, measure: bool, seed: int, **how: Any) -> tuple[Tensor, Tensor, int]:
    """(L, 2^n) scores on the CPU, (L,) their noise if it is to be measured, and masked images evaluated."""
    if not measure:
        values = game.values(**how).cpu()
        return values.T if values.dim() == 2 else values[None], torch.zeros(0), len(values)
    if isinstance(game, LayerGame):
        layered = game.play_layers(seed=seed, **how)
        return layered.values, layered.sigma, layered.forwards
    whole = game.play(seed=seed, **how)
    return whole.values.cpu()[None], torch.tensor([whole.noise], dtype=torch.float64), whole.forwards


@contextmanager
def _counting(ticker: Ticker, subsets: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What takes the progress of one game into that of all."""
    before = 0

    def count(told: Mapping[str, Any]) -> None:
        nonlocal before
        ticker(told["done"] - before)
        before = told["done"]

    yield count
    count({"done": subsets})  # those of a checkpoint too
