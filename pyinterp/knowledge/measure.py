"""measure_knowledge: a network and labelled images in, what each of its layers knows of them out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.features.data import Source, open_source
from pyinterp.games.image import ImageGame
from pyinterp.games.masking import Baseline
from pyinterp.games.network import as_module
from pyinterp.games.players import Players, grid_players, require_players
from pyinterp.interactions.and_or import check_split
from pyinterp.knowledge.layer_game import LayerGame
from pyinterp.knowledge.layer_knowledge import THRESHOLD, LayerKnowledge
from pyinterp.knowledge.layers import Layers
from pyinterp.knowledge.play import Make, mean_logits, play_images, predicted, require_game, require_settings
from pyinterp.knowledge.probes import OWN, Probes, fit_probes
from pyinterp.models.images import Preprocessor, read_entries
from pyinterp.models.zoo import LoadedModel
from pyinterp.progress import Progress

WHERE = "measure_knowledge"
ALIKE = 0.05  # standard deviations of the mean logit: far above rounding, and few other images come so near


def measure_knowledge(
    model: nn.Module | LoadedModel,
    images: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] = (),
    players: Players | None = None,
    layers: Layers = "auto",
    probes: Probes | None = None,
    count: int = 30,
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
    """Find which interactions each layer of a network encodes, which of them the last one keeps, and which it adds.

    A linear probe on each layer is fitted to the task, and ``count`` images that no probe has seen are explained: all
    2^n subsets of their parts are shown to the network, the scores v^(l)(S) of the right class at all layers come from
    the same forward, and the scores of each layer are split into AND and OR effects (`sparse_and_or`).

    Args:
        model: In eval mode; it stays as it is.
        images: See `fit_probes`: those that the probes are fitted to, and of which some are explained.
        labels: See `fit_probes`.
        class_names: See `fit_probes`.
        players: The parts of an image; by default a grid of 3 rows and 4 columns.
        layers: See `find_layers`; or "output": no probe, the network's own answer alone. Labels are not needed then:
            the score is that of the class that the network predicts, among all of its classes.
        probes: That were fitted before to the same data; None fits them, with the defaults of `fit_probes`.
        count: Images that are explained, 2 or more, as many of each class as there are.
        score: "log_odds", "logit" or "probability"; see `Scorer`.
        baseline: What masked parts are replaced by; see `make_baseline`.
        noise: See `sparse_and_or`.
        threshold: Effects count from this share of the largest one of their layer over all images on.
        draws: Play each game again on this many copies of the image with Gaussian noise, for `stability`; 0, or 5 and
            more.
        input_noise: Standard deviation of that noise, in the units of the preprocessed images.
        batch_size: Masked images per forward; found by measuring if left out.
        max_players: More are refused.
        devices: Several devices to share the forwards.
        folder: Where features, probes and scores are kept, so that a run can be interrupted and taken up again.
        preprocess: PIL image -> (C, H, W); None takes that of a `LoadedModel`.
        allow_tf32: Let GPUs round float32 products to TF32: faster, with higher noise floors.
        seed: Of the held-out samples, of the choice of images and of the draws.
        progress: None shows a bar on a terminal; True, False, or a callable that gets {"done", "total", "seconds"}.

    Raises:
        ValueError: As `fit_probes` and `ImageGame`; fewer held-out images than ``count``.
        TypeError: Something of another type.

    Source: Cheng et al., "Layerwise Change of Knowledge in Neural Networks", ICML 2024.
    """
    start = time.perf_counter()
    loaded = model if isinstance(model, LoadedModel) else None
    preprocess = preprocess or (loaded.preprocess if loaded else None)
    place = None if folder is None else Path(folder)
    players = require_players(WHERE, grid_players(3, 4) if players is None else players, "grid_players(3, 4)")
    require_settings(WHERE, players, max_players, draws, input_noise, threshold)
    check_split(WHERE, noise, len(players.names))
    require_game(WHERE, score, baseline, batch_size)
    if type(count) is not int or count < 2:
        raise ValueError(explain(WHERE, "a count of 2 or more", repr(count), "Intervals take two images."))
    task: dict[str, Any] = {"class_names": class_names, "preprocess": preprocess, "seed": seed}
    own: dict[str, Any] = {"score": score, "baseline": baseline, "allow_tf32": allow_tf32}
    if probes is not None and (labels is not None or class_names or layers != "auto"):
        fix = "Leave the others out: the probes have them."
        raise ValueError(explain(WHERE, "probes, or labels, class_names and layers", "both", fix))
    if layers == OWN:
        asked = _of_output(model, images, labels, players, count, own, **task)
    else:
        if probes is None:
            _ordered(open_source(images, preprocess, 64))
            task |= {"folder": place, "progress": progress}
            probes = fit_probes(model, images, labels, layers=layers, **task)
        asked = _of_layers(model, images, probes, players, count, own, preprocess, seed)
    return play_images(
        asked.make,
        asked.pictures,
        start=start,
        noise=noise,
        draws=draws,
        input_noise=input_noise,
        folder=place,
        files=[str(int(row)) for row in asked.rows],
        seed=seed,
        progress=progress,
        how={"batch_size": batch_size, "max_players": max_players, "devices": devices},
        threshold=threshold,
        model_name=loaded.name if loaded else type(model).__name__,
        **asked.known,
    )


@dataclass(frozen=True)
class _Asked:
    """What is played: games of pictures, their numbers in the data, and what is known of them beforehand."""

    make: Make
    pictures: list[Tensor]
    rows: Tensor
    known: dict[str, Any]


def _of_layers(
    model: nn.Module | LoadedModel,
    images: Any,
    probes: Probes,
    players: Players,
    count: int,
    own: dict[str, Any],
    preprocess: Preprocessor | None,
    seed: int,
) -> _Asked:
    """Held-out images, at all layers that have a probe."""
    if probes.model is not (model.model if isinstance(model, LoadedModel) else model):
        fix = "Pass the network that they were fitted to."
        raise ValueError(explain(WHERE, "probes of this network", "those of another", fix))
    source = _ordered(open_source(images, preprocess, 64))
    fix = "Pass the same data, in the same order, and without augmentation."
    if source.digest != probes.data_digest:
        raise ValueError(explain(WHERE, "the images that the probes were fitted to", "others", fix))
    rows = _chosen(probes.held, probes.labels, count, seed)
    pictures = _pictures(source, preprocess, rows)
    marks = mean_logits(probes.model, torch.stack(pictures))
    if not bool(((marks - probes.marks[rows]).abs() <= ALIKE * probes.marks.std()).all()):
        got = "others: the network answers otherwise"
        raise ValueError(explain(WHERE, "the images that the probes were fitted to", got, fix))

    def make(i: int, picture: Tensor) -> list[LayerGame]:
        return [LayerGame(probes, picture, players, int(probes.labels[rows[i]]), **own)]

    known = {
        "layers": probes.names,
        "accuracy": probes.accuracy,
        "labels": probes.labels[rows],
        "image_names": tuple(probes.sample_names[row] for row in rows),
        "class_names": probes.class_names,
        "chance": probes.chance,
        "judged": len(probes.held),
    }
    return _Asked(make, pictures, rows, known)


def _of_output(
    model: nn.Module | LoadedModel,
    images: Any,
    labels: Any,
    players: Players,
    count: int,
    own: dict[str, Any],
    *,
    class_names: Sequence[str],
    preprocess: Preprocessor | None,
    seed: int,
) -> _Asked:
    """Images, at the output alone."""
    network = as_module(WHERE, model.model if isinstance(model, LoadedModel) else model)
    if class_names or labels is not None:
        fix = "Leave them out: the classes that the network predicts are taken."
        raise ValueError(explain(WHERE, f'no labels for layers="{OWN}"', "labels or class_names", fix))
    source = _ordered(open_source(images, preprocess, 64))
    if source.rows is None:
        fix = "Pass a tensor, pictures, a folder or a Dataset."
        raise ValueError(explain(WHERE, "images that can be counted", "a stream", fix))
    everything = torch.arange(source.rows)
    rows = _chosen(everything, torch.zeros(source.rows, dtype=torch.int64), count, seed)
    pictures = _pictures(source, preprocess, rows)
    targets = predicted(network, torch.stack(pictures))

    def make(i: int, picture: Tensor) -> list[ImageGame]:
        return [ImageGame(network, picture, players, target=int(targets[i]), **own)]

    known = {
        "layers": (OWN,),
        "accuracy": torch.full((1,), torch.nan, dtype=torch.float64),
        "labels": targets,
        "image_names": tuple(source.name(row) for row in rows.tolist()),
        "class_names": tuple(model.classes) if isinstance(model, LoadedModel) else (),
    }
    return _Asked(make, pictures, rows, known)


def _ordered(source: Source) -> Source:
    """The same, if its images can be read a second time in the same order."""
    if not source.ordered:
        fix = "Pass a DataLoader with shuffle=False, or its dataset."
        raise ValueError(explain(WHERE, "images in one order", "a DataLoader that shuffles", fix))
    return source


def _chosen(rows: Tensor, labels: Tensor, count: int, seed: int) -> Tensor:
    """``count`` of the samples ``rows`` of (N,) labels, in turn of each class, in rising order."""
    if count > len(rows):
        fix = "Ask for fewer, hold more out, or pass more images."
        raise ValueError(explain(WHERE, f"a count of at most {len(rows)} images", count, fix))
    mixed = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    turns = torch.zeros(len(mixed), dtype=torch.int64)
    for label in labels[mixed].unique():
        mine = labels[mixed] == label
        turns[mine] = torch.arange(int(mine.sum()))
    return mixed[turns.argsort(stable=True)[:count]].sort().values


def _pictures(source: Source, preprocess: Preprocessor | None, rows: Tensor) -> list[Tensor]:
    """The inputs of these samples."""
    if source.pictures:
        names = [source.name(row) for row in rows.tolist()]
        return list(read_entries([source.pictures[row] for row in rows.tolist()], names, preprocess))
    wanted, found, start = set(rows.tolist()), [], 0
    for batch in source.batches(0):
        inputs = batch.inputs
        if not isinstance(inputs, Tensor):
            fix = "Pass images, as tensors or files."
            raise TypeError(explain(WHERE, "inputs (N, C, H, W)", type(inputs).__name__, fix))
        found += [inputs[i] for i in range(len(inputs)) if start + i in wanted]
        start += len(inputs)
        if len(found) == len(wanted):
            break
    return found
