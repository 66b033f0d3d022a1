"""compare_knowledge: two functions of the same images in, which interactions they share, and which only one has out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.games.image import ImageGame
from pyinterp.games.masking import Baseline
from pyinterp.games.network import as_module
from pyinterp.games.players import Players, grid_players, require_players
from pyinterp.interactions.and_or import check_split
from pyinterp.knowledge.layer_knowledge import THRESHOLD, LayerKnowledge
from pyinterp.knowledge.play import play_images, predicted, require_game, require_settings
from pyinterp.models.graph import logits_of
from pyinterp.models.images import Preprocessor, load_images
from pyinterp.models.inputs import call
from pyinterp.models.zoo import LoadedModel
from pyinterp.progress import Progress

WHERE = "compare_knowledge"
Network = nn.Module | LoadedModel


def compare_knowledge(
    first: Network,
    second: Network | Sequence[Network],
    images: Any,
    targets: Tensor | Sequence[int] | None = None,
    *,
    names: Sequence[str] = ("first", "second"),
    players: Players | None = None,
    score: str = "log_odds",
    baseline: Baseline = "zero",
    noise: float = 0.04,
    threshold: float = THRESHOLD,
    draws: int = 0,
    input_noise: float = 0.02,
    batch_size: int | None = None,
    max_players: int = 20,
    devices: Sequence[str | torch.device] | None = None,
    folder: str | PathLike[str] | None = None,
    preprocess: Preprocessor | None = None,
    allow_tf32: bool = False,
    seed: int = 0,
    progress: Progress = None,
) -> LayerKnowledge:
    """Find which interactions of one network another one keeps, loses and adds.

    The two are any functions of the same images: a network and its chain (``chain.compact(model)``), two checkpoints of
    a training run, a network before and after it was pruned or quantised, two networks for one task. The result is as
    that of `measure_knowledge`, with the two in the place of layers: ``overlap("next")`` is what they share,
    ``forget("next")`` what only the first has, ``new("next")`` what only the second has, and `LayerKnowledge.iou` how
    alike the sets of their salient interactions are. There may be more than two, such as the checkpoints of a training
    run, from the first one on: they stand for layers in the same way.

    Args:
        first: In eval mode; it stays as it is.
        second: Likewise; or a list of networks, the last of which all are compared with.
        images: (M, C, H, W), preprocessed; or, with a preprocess, all that `load_images` takes.
        targets: (M,) classes whose scores are taken; None: those that ``first`` predicts.
        names: Of all.
        players: See `measure_knowledge`, like all that follows.
        score: See there.
        baseline: See there.
        noise: See there.
        threshold: See there.
        draws: See there.
        input_noise: See there.
        batch_size: See there.
        max_players: See there.
        devices: See there.
        folder: See there.
        preprocess: PIL image -> (C, H, W); None takes that of a `LoadedModel`.
        allow_tf32: See there.
        seed: Of the draws.
        progress: See there.

    Raises:
        ValueError: As `ImageGame`; another number of targets than of images.
        TypeError: Something of another type.
    """
    start = time.perf_counter()
    given = [first, *(second if isinstance(second, (list, tuple)) else [second])]
    loaded = next((one for one in given if isinstance(one, LoadedModel)), None)
    _require_names(names, len(given))
    for other in given[1:]:
        _require_alike(first, other)
    networks = [as_module(WHERE, one.model if isinstance(one, LoadedModel) else one) for one in given]
    shown = load_images(images, preprocess or (loaded.preprocess if loaded else None))
    players = require_players(WHERE, grid_players(3, 4) if players is None else players, "grid_players(3, 4)")
    require_settings(WHERE, players, max_players, draws, input_noise, threshold)
    check_split(WHERE, noise, len(players.names))
    require_game(WHERE, score, baseline, batch_size)
    if len(shown.tensor) < 2:
        fix = "Intervals are taken over images: pass more."
        raise ValueError(explain(WHERE, "two images or more", len(shown.tensor), fix))
    with torch.no_grad():
        widths = [logits_of(call(model, shown.tensor[:1])).shape[1] for model in networks]
    if len(set(widths)) > 1:
        fix = "Pass functions for one task."
        raise ValueError(explain(WHERE, "as many classes", " and ".join(map(str, widths)), fix))
    labels = _targets(networks[0], shown.tensor, targets)
    own: dict[str, Any] = {"score": score, "baseline": baseline, "allow_tf32": allow_tf32}

    def make(i: int, image: Tensor) -> list[ImageGame]:
        return [ImageGame(model, image, players, target=int(labels[i]), **own) for model in networks]

    return play_images(
        make,
        list(shown.tensor),
        start=start,
        noise=noise,
        draws=draws,
        input_noise=input_noise,
        folder=None if folder is None else Path(folder),
        files=[str(i) for i in range(len(shown.tensor))],
        seed=seed,
        progress=progress,
        how={"batch_size": batch_size, "max_players": max_players, "devices": devices},
        layers=tuple(names),
        accuracy=torch.full((len(given),), torch.nan, dtype=torch.float64),
        labels=labels,
        image_names=shown.names,
        class_names=loaded.classes if loaded else (),
        threshold=threshold,
        of_networks=True,
        model_name=" and ".join(names) if len(names) == 2 else f"{len(names)} networks",
    )


def _require_names(names: Any, count: int) -> None:
    if (
        not isinstance(names, (tuple, list))
        or len(names) != count
        or not all(isinstance(one, str) for one in names)
        or len(set(names)) < count
    ):
        fix = "Pass as many strings that differ."
        raise ValueError(explain(WHERE, f"names of {count} networks", repr(names), fix))


def _require_alike(first: Any, second: Any) -> None:
    """Raise ValueError for two loaded networks that read images, or number classes, in different ways."""
    if not (isinstance(first, LoadedModel) and isinstance(second, LoadedModel)):
        return
    unlike = [
        what
        for what, one, other in (
            ("preprocessing", repr(first.preprocess), repr(second.preprocess)),
            ("size of images", first.input_shape, second.input_shape),
            ("classes", tuple(first.classes), tuple(second.classes)),
        )
        if one != other
    ]
    if unlike:
        fix = "Pass modules that take the same tensors, and give the same classes, in place of these."
        raise ValueError(explain(WHERE, "two functions of the same images", f"another {unlike[0]}", fix))


def _targets(model: nn.Module, images: Tensor, targets: Any) -> Tensor:
    if targets is None:
        return predicted(model, images)
    try:
        found = torch.as_tensor(targets)
    except (TypeError, ValueError) as error:
        fix = "Pass one class number per image."
        raise TypeError(explain(WHERE, "classes as whole numbers", repr(targets), fix)) from error
    if found.shape != images.shape[:1] or found.is_floating_point():
        got = f"{tuple(found.shape)} {found.dtype}"
        fix = "Pass one class per image, or None for those that the first network predicts."
        raise ValueError(explain(WHERE, f"{len(images)} classes", got, fix))
    return found.long()
