"""Probes: what the layers of a network know of the task, read out by a linear classifier on each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.features import extract_features
from pyinterp.features.data import Source, open_source
from pyinterp.heads import SparseHead, fit_sparse_path
from pyinterp.knowledge.files import load_probes, make_folder, save_probes
from pyinterp.knowledge.layers import Layer, Layers, find_layers
from pyinterp.knowledge.metrics import can_tell, is_chance
from pyinterp.knowledge.taps import ProbedNetwork, TapFeatures, Taps, reduction, two_logits
from pyinterp.knowledge.task import Task, held_out_rows, task_of
from pyinterp.models.graph import logits_of
from pyinterp.models.identity import digest_of, tensor_digest
from pyinterp.models.images import Preprocessor
from pyinterp.models.inputs import Inputs, call, take_rows
from pyinterp.models.zoo import LoadedModel
from pyinterp.progress import Progress

WHERE = "fit_probes"
OWN = "output"
"""What the network's own answer is called among the layers."""
SHOWN = 16
"""Samples of the data, with two of which layers are found."""


@dataclass(frozen=True, eq=False)
class Probes:
    """Linear classifiers on the layers of one network, for the classes that its data show.

    Attributes:
        model: The network.
        layers: L of them, in the order in which they run.
        heads: Of each, on the vectors of `pyinterp.knowledge.taps.Taps`.
        width: What longer outputs are reduced to; see there.
        rows: Which of the network's classes are those of the probes; None where that is not known, so that its own
            answer is left out.
        accuracy: (L,) of each probe on the held-out samples; with ``rows`` (L + 1,), the network's own among these
            classes last.
        chance: Share of the commonest class among these samples.
        held: Numbers of these samples; no probe has seen them.
        data_digest: Tells the data from others.
        fitted: How many samples the probes were fitted to, those that chose their strength included.
        labels: (N,) of all samples.
        class_names: K names.
        sample_names: N names.
        marks: (N,) float64, the mean logit of each sample, by which it is known when it is read again.
    """

    model: nn.Module
    layers: tuple[Layer, ...]
    heads: tuple[SparseHead, ...]
    width: int
    rows: tuple[int, ...] | None
    accuracy: Tensor
    chance: float
    held: Tensor
    data_digest: str
    fitted: int
    labels: Tensor
    class_names: tuple[str, ...]
    sample_names: tuple[str, ...]
    marks: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """Of the layers; "output" last, where the network's own answer is among them."""
        own = () if self.rows is None else (OWN,)
        return (*(layer.name for layer in self.layers), *own)

    @property
    def near_chance(self) -> tuple[str, ...]:
        """Layers whose accuracy chance alone would reach one time in a hundred."""
        told = zip(self.names, self.accuracy.tolist(), strict=True)
        return tuple(name for name, one in told if is_chance(one, self.chance, len(self.held)))

    def network(self) -> ProbedNetwork:
        """The network with all its probes: inputs -> (N, layers times K) logits."""
        taps = Taps(self.model, self.layers, self.width)
        return ProbedNetwork(taps, [head.to_linear() for head in self.heads], self.rows)

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``path.safetensors`` and ``path.json``, without the network; never pickle.

        Raises:
            OSError: It could not be written; older files of that name are still whole then.
        """
        save_probes(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str], model: nn.Module) -> Probes:
        """Read what `save` wrote.

        Args:
            path: As it was saved.
            model: The network that the probes were fitted to.

        Raises:
            ValueError: The files are not whole or are something else; another network.
        """
        return load_probes(path, model)

    def summary(self) -> str:
        """A line per layer."""
        lines = [
            f"{len(self.heads)} probes for {len(self.class_names)} classes, fitted to {self.fitted} samples; accuracy "
            f"on {len(self.held)} others (chance: {self.chance:.0%})."
        ]
        told = [f"{layer.name}: {reduction(layer, self.width)}" for layer in self.layers] + [OWN]
        for name, accuracy in zip(told, self.accuracy.tolist(), strict=False):
            lines.append(f"  {accuracy:6.1%}  {name}")
        if self.rows is None:
            lines.append("Which of the network's classes these are is not known: its own answer is left out.")
        beside = [layer.name for layer in self.layers if not layer.whole]
        if beside:
            lines.append(f"Beside a skip connection, so that later layers know more: {', '.join(beside)}.")
        return "\n".join(lines)


def fit_probes(
    model: nn.Module | LoadedModel,
    data: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] = (),
    layers: Layers = "auto",
    n_layers: int = 8,
    width: int = 1024,
    held_out: float | Tensor | Sequence[int] = 0.2,
    example: Inputs | None = None,
    folder: str | PathLike[str] | None = None,
    batch_size: int = 64,
    preprocess: Preprocessor | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Probes:
    """Fit a linear classifier to what each of some layers computes.

    A probe is a softmax regression on standardised features with an elastic net (alpha = 0.5), whose strength is the
    one with the least loss on a fifth of the samples that are not held out; see `fit_sparse_path`. All layers are read
    in one pass over the data.

    Args:
        model: In eval mode; it stays as it is. With a `LoadedModel`, folders are matched with its classes by name.
        data: As for `extract_features`: tensors, a folder with a sub-folder per class, a Dataset, a DataLoader, ...
        labels: (N,) class numbers where the data bring none: those of the network, of which any may be absent.
        class_names: Of the labels, where they are not numbered as the network's classes: they are matched by name then.
            Where a name is not known, the network's own answer is left out.
        layers: See `find_layers`.
        n_layers: Of layers="auto".
        width: Outputs with more numbers are reduced: see `pyinterp.knowledge.taps.Taps`.
        held_out: Share of the samples of each class that accuracies are measured on, and that are explained; or the
            numbers (h,) of these samples, such as those that the network was not trained on.
        example: Inputs to find the layers with; None takes the first of a tensor, or of the data.
        folder: Where features and probes are kept, so that a later call goes on from there; features are then read from
            disk.
        batch_size: Of the data, where they come without.
        preprocess: PIL image -> (C, H, W); None takes that of a `LoadedModel`.
        seed: Of the samples that are held out.
        progress: None shows a bar on a terminal; True, False, or a callable that gets {"done", "total", "seconds"}.

    Raises:
        ValueError: As `find_layers` and `extract_features`; no labels, one class, a class with a single sample.
        TypeError: Something of another type.

    Warns:
        UserWarning: A probe near chance, or one that did not converge.
    """
    loaded = model if isinstance(model, LoadedModel) else None
    network = model.model if isinstance(model, LoadedModel) else model
    preprocess = preprocess or (loaded.preprocess if loaded else None)
    if type(width) is not int or width < 1:
        raise ValueError(explain(WHERE, "width of 1 or more", repr(width), "Pass 1024."))
    if isinstance(data, Iterator):
        fix = "Pass a DataLoader or a Dataset."
        raise ValueError(explain(WHERE, "data that can be read twice", "an iterator", fix))
    source = open_source(data, preprocess, batch_size)
    given = _first(source) if example is None else example
    _require_finite(given)
    found = find_layers(network, given, layers, n_layers=n_layers)
    taps = Taps(network, found, width)
    with torch.no_grad():
        classes = two_logits(logits_of(call(network, take_rows(given, slice(2))))).shape[1]
    place = None if folder is None else Path(folder)
    if place is not None:
        make_folder(place)
    of_layers = digest_of({"layers": str([layer.name for layer in found]), "width": str(width)})[:10]
    features = extract_features(
        TapFeatures(taps, classes),
        data,
        labels,
        file=None if place is None else place / f"layers-{of_layers}.npy",
        batch_size=batch_size,
        preprocess=preprocess,
        example=given,
        progress=progress,
    )
    if class_names:
        if len(set(class_names)) < len(class_names):
            twice = next(name for name in class_names if list(class_names).count(name) > 1)
            raise ValueError(explain(WHERE, "class names that differ", f"{twice!r} twice", "Rename one."))
        if features.labels is not None and int(features.labels.max()) >= len(class_names):
            got = f"{len(class_names)}, and the label {int(features.labels.max())}"
            raise ValueError(explain(WHERE, "a class name for each label", got, "Pass one name per class."))
        features = replace(features, class_names=tuple(class_names))
    task = task_of(features, loaded.classes if loaded else (), classes)
    held = held_out_rows(task, held_out, seed)
    rest = torch.ones(len(features), dtype=torch.bool).index_fill(0, held, False).nonzero()[:, 0]
    of_rows = tensor_digest(torch.stack([rest, task.labels[rest]]))[:10]
    heads, accuracy = [], []
    for layer, (start, end) in zip(found, pairwise(accumulate(taps.widths, initial=0)), strict=True):
        file = None if place is None else place / f"probe-{layer.name}-{width}-{of_rows}"
        values = features.values[rest, start:end]
        heads.append(_probe(layer, values, task, rest, file, seed, progress))
        accuracy.append(heads[-1].accuracy(features.values[held, start:end], task.labels[held]))
    if task.rows is not None:
        own = features.values[held, sum(taps.widths) :][:, list(task.rows)].argmax(1)
        accuracy.append(float((own == task.labels[held]).double().mean()))
    probes = Probes(
        model=network,
        layers=found,
        heads=tuple(heads),
        width=width,
        rows=task.rows,
        accuracy=torch.tensor(accuracy, dtype=torch.float64),
        chance=float(torch.bincount(task.labels[held]).max()) / len(held),
        held=held,
        data_digest=source.digest,
        fitted=len(rest),
        labels=task.labels,
        class_names=task.names,
        sample_names=features.names,
        marks=features.values[:, sum(taps.widths) :].mean(1, dtype=torch.float64),
    )
    _warn(probes, bool(features.class_names))
    return probes


def _probe(
    layer: Layer,
    values: Tensor,
    task: Task,
    rows: Tensor,
    file: Path | None,
    seed: int,
    progress: Progress,
) -> SparseHead:
    """The classifier on what one layer computes of the samples ``rows``."""
    try:
        with warnings.catch_warnings():
            # Told by layer; and where classes have few samples, the held-out ones say so.
            told = "fit_sparse_path: expected (every point|validation samples)"
            warnings.filterwarnings("ignore", told, UserWarning)
            path = fit_sparse_path(
                values,
                task.labels[rows],
                alpha=0.5,
                n_lambdas=20,
                tolerance=1e-3,
                validation=0.2,
                file=file,
                seed=seed,
                progress=progress,
            )
    except ValueError as error:
        raise ValueError(f"{WHERE}: no probe for layer {layer.name!r}. {error}") from error
    if path.stopped == "interrupted":
        raise KeyboardInterrupt
    return replace(path.select(best="loss"), class_names=task.names)


def _first(source: Source) -> Inputs:
    """The first samples of the data, two of which should differ."""
    batch = next(source.batches(0), None)
    if batch is None:
        raise ValueError(explain(WHERE, "at least two samples", "none", "Pass some data."))
    return take_rows(batch.inputs, slice(SHOWN))


def _require_finite(inputs: Inputs) -> None:
    parts = (
        [inputs]
        if isinstance(inputs, Tensor)
        else [one for one in inputs.values() if isinstance(one, Tensor)]
    )
    if not all(bool(one.isfinite().all()) for one in parts):
        fix = "Look at how they are read and preprocessed."
        raise ValueError(explain(WHERE, "finite inputs", "NaN or infinite values", fix))


def _warn(probes: Probes, named: bool) -> None:
    """Say what to doubt; ``named``: whether classes were matched by their names."""
    if probes.rows is None:
        names = ", ".join(probes.class_names[:3])
        got = f"classes that it has under no such name or number ({names}{', ...' * (len(probes.class_names) > 3)})"
        fix = (
            f"The last layer is the probe of {probes.layers[-1].name!r} instead of the network's own answer."
        )
        warnings.warn(explain(WHERE, "classes of the network", got, fix), stacklevel=3)
    off = [
        f"{layer.name} (KKT violation {head.origin['kkt']:.1e})"
        for layer, head in zip(probes.layers, probes.heads, strict=True)
        if head.origin.get("converged") is False
    ]
    if off:
        fix = "They are classifiers all the same, with the accuracy that is told; a smaller width may help."
        warnings.warn(explain(WHERE, "probes that converge", ", ".join(off), fix), stacklevel=3)
    if not can_tell(probes.chance, len(probes.held)):
        got = f"{len(probes.held)}, of which {probes.chance:.0%} are of one class"
        fix = "Accuracies say nothing: hold more out, or add samples."
        warnings.warn(
            explain(WHERE, "held-out samples that can show more than chance", got, fix), stacklevel=3
        )
    lost = probes.near_chance
    if lost:
        told = dict(zip(probes.names, probes.accuracy.tolist(), strict=True))
        got = ", ".join(f"{name} ({told[name]:.0%})" for name in lost)
        fix = "What is said of these layers says little."
        if OWN in lost and not named:
            fix = "Are the labels numbered as the network's classes? " + fix
        wanted = f"an accuracy above chance ({probes.chance:.0%} of {len(probes.held)} samples)"
        warnings.warn(explain(WHERE, wanted, got, fix), stacklevel=3)
