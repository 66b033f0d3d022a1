"""``extract_interactions``: an image in, the AND and OR effects of its parts out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.games.image import ImageGame
from pyinterp.games.masking import Baseline
from pyinterp.games.players import Players, grid_players
from pyinterp.games.scores import Score
from pyinterp.interactions.and_or import SparseAndOr, check_split, sparse_and_or
from pyinterp.interactions.interactions import Interactions
from pyinterp.interactions.subsets import check_values
from pyinterp.models.identity import model_digest
from pyinterp.models.images import load_images
from pyinterp.models.zoo import LoadedModel
from pyinterp.progress import Progress
from pyinterp.version import package_version


def extract_interactions(
    model: nn.Module | LoadedModel,
    image: Any,
    players: Players | None = None,
    *,
    target: int | None = None,
    score: Score = "log_odds",
    baseline: Baseline = "zero",
    masking: Literal["replace", "drop"] = "replace",
    noise: float = 0.04,
    merge_first_order: bool = True,
    draws: int = 0,
    input_noise: float = 0.02,
    seed: int = 0,
    batch_size: int | None = None,
    max_players: int = 20,
    checkpoint: str | PathLike[str] | None = None,
    devices: Sequence[str | torch.device] | None = None,
    progress: Progress = None,
    allow_tf32: bool = False,
) -> Interactions:
    """Find which parts of an image act together in a network's score.

    All 2^n subsets of the n parts are shown to the network, the rest is masked, and the 2^n scores are split into AND
    and OR effects with the least sum of strengths. The model comes back as it was.

    Args:
        model: Maps images (N, C, H, W) to logits, in eval mode; or what `models.load` gives.
        image: (C, H, W) or (1, C, H, W), preprocessed; with a `LoadedModel` also a PIL image or a path.
        players: Which parts there are; by default a grid of 3 rows and 4 columns, 4,096 subsets.
        target: The class; by default the one predicted on the image.
        score: "log_odds", "logit", "probability" or a callable; see `ImageGame`.
        baseline: What masked parts are replaced by: "zero", "mean", "blur" or a tensor; see `make_baseline`.
        masking: "replace", or "drop" to remove the tokens of a vision transformer; see `ImageGame`.
        noise: Bound of what the split may leave unexplained of each score, as a share of |v(N) - v(empty)|.
        merge_first_order: Give each single player one effect; see `Interactions.merge_first_order`.
        draws: Play the game again on this many copies of the image with Gaussian noise, 2 or more, for the intervals
            of every effect; 0 leaves them out. Each draw takes as long as the game itself.
        input_noise: Standard deviation of that noise, in the units of the preprocessed image.
        seed: Of that noise.
        batch_size: Subsets per forward; found by measuring if left out.
        max_players: More are refused: they take 2^n forwards.
        checkpoint: A file for the scores so far, so that a run can be interrupted and taken up again; each draw has one
            beside it.
        devices: Several devices to share the forwards, as ``["cuda:0", "cuda:1"]``.
        progress: A bar on a terminal if None; True, False, or a callable; see `Game.values`.
        allow_tf32: Let GPUs round float32 products to TF32: faster, with higher noise floors.

    Raises:
        ValueError: The players, the target, the score, the baseline or the checkpoint do not fit, too many players, or
            scores that are not finite.
        TypeError: Something is of another type.
    """
    check_split("extract_interactions", noise, 1)
    if not isinstance(draws, int) or draws < 0 or draws == 1:
        fix = "One draw has no spread: ask for 2 or more, or 0 for none."
        raise ValueError(explain("extract_interactions", "draws of 0 or at least 2", draws, fix))
    if draws and not 0 < input_noise < math.inf:
        fix = "Try 0.02."
        raise ValueError(explain("extract_interactions", "input_noise > 0", input_noise, fix))
    generator = torch.Generator().manual_seed(_whole(seed))
    start = time.perf_counter()
    players = grid_players(3, 4) if players is None else players
    played: dict[str, Any] = {
        "score": score,
        "baseline": baseline,
        "masking": masking,
        "allow_tf32": allow_tf32,
    }
    how: dict[str, Any] = {
        "batch_size": batch_size,
        "max_players": max_players,
        "devices": devices,
        "progress": progress,
    }
    loaded = model if isinstance(model, LoadedModel) else None
    game = ImageGame(model, image, players, target=target, **played)
    check_split("extract_interactions", noise, min(game.count, max_players))
    result = game.play(checkpoint=checkpoint, **how)
    forwards, split = result.forwards, None
    if draws:
        scores = []
        for draw in range(draws):
            shift = torch.randn(game.image.shape, generator=generator, dtype=torch.float64)
            noisy = game.image + (input_noise * shift).to(game.image)
            again = ImageGame(model, noisy, players, target=game.target, **played)
            scores.append(again.values(checkpoint=_beside(checkpoint, draw), **how))
            forwards += len(scores[-1])
        solved = sparse_and_or(torch.stack(scores), noise=noise)
        split = torch.stack([solved.and_, solved.or_], 1).detach().cpu()
    shown = load_images(game.image[None].cpu().float(), None if loaded is None else loaded.preprocess)
    found = interactions_from_values(
        result.values,
        players,
        noise=noise,
        merge_first_order=merge_first_order,
        sigma=result.noise,
        pixels=shown.pixels[0],
        draws=split,
        input_noise=input_noise if draws else 0.0,
        target=game.target,
        class_name=class_name(loaded, game.target),
        score=result.score,
        baseline=result.baseline,
        masking=result.masking,
        model_name=type(model).__name__ if loaded is None else loaded.name,
        weights_digest=model_digest(game.model),
        forwards=forwards,
    )
    return replace(found, player_map=game.player_map, seconds=time.perf_counter() - start)


def interactions_from_values(
    values: Tensor,
    players: Players | Sequence[str] | None = None,
    *,
    noise: float = 0.04,
    merge_first_order: bool = True,
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
        merge_first_order: Give each single player one effect; see `Interactions.merge_first_order`.
        sigma: Standard deviation of the numerical error of one score, for the noise floors; None: not measured.
        pixels: (3, H, W) uint8, the image, for reports.
        solution: What `sparse_and_or` gave for these scores, if it is there already.
        **facts: Further fields of `Interactions`: ``model_name="resnet50"``, ``class_name="tabby"``, ...

    Raises:
        ValueError: The scores are not 2^n finite numbers, or not of so many players.
    """
    count = check_values("interactions_from_values", values)
    if values.dim() != 1 or not count:
        fix = "Pass the scores of one game; sparse_and_or solves many at once."
        raise ValueError(
            explain("interactions_from_values", "values (2^n,), n >= 1", tuple(values.shape), fix)
        )
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
    found = Interactions(
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
        iterations=int(split.iterations),
        primal_residual=float(split.primal_residual),
        sigma=sigma,
        versions={"pyinterp": package_version(), "torch": torch.__version__},
        **facts,
    )
    return found.merge_first_order() if merge_first_order else found


def class_name(loaded: LoadedModel | None, target: int) -> str:
    """The name of a class; "" if none is known."""
    return loaded.classes[target] if loaded is not None and target < len(loaded.classes) else ""


def _whole(seed: Any) -> int:
    if not isinstance(seed, int):
        raise TypeError(explain("extract_interactions", "a whole number as seed", repr(seed), "Try 0."))
    return seed


def _beside(checkpoint: str | PathLike[str] | None, draw: int) -> Path | None:
    """The checkpoint of a draw."""
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}-draw{draw + 1}{path.suffix}")
