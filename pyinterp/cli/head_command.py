"""``pyinterp head``."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyinterp.cli.common import Debug, Device, Model, Out, make_folder, save_result, say, told
from pyinterp.cli.data import Data, class_folders, photograph_crops, require_classes
from pyinterp.errors import explain

if TYPE_CHECKING:
    from pyinterp.features import Features
    from pyinterp.heads import SparseHead, SparsePath
    from pyinterp.heads.head_study import HeadStudy
    from pyinterp.models import LoadedModel

ASKED, ASKED_OF_PHOTOGRAPHS = 20.0, 5.0  # features per class
BEYOND = 2  # the path goes on to this many times the features that were asked for, for its picture
NEAR = 0.1
# How fit_sparse_path tells of a path in its file that it does not go on with; a file of another kind is left alone.
_OTHER = re.compile(r"it (differs in [^)]*)")
_DAMAGED = re.compile(r"SparsePath\.load: expected (the two files|.* got \w*Error)")


def head(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder with one sub-folder of images per class.",
            show_default="crops of five photographs",
        ),
    ] = None,
    model: Model = "default",
    features_per_class: Annotated[
        float | None,
        typer.Option(
            help="The head with about this many features per class in the mean.",
            show_default=f"{ASKED:g}; {ASKED_OF_PHOTOGRAPHS:g} for the photographs",
        ),
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(
            help="Instead: the sparsest head at most this far below the best accuracy, as 0.05.", min=0, max=1
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Share of the penalty that makes zeros.", min=0, max=1)] = 0.99,
    n_lambdas: Annotated[int, typer.Option(help="Heads on the path.", min=1)] = 100,
    grouped: Annotated[
        bool, typer.Option("--grouped", help="A feature is used by all classes or by none.")
    ] = False,
    validation: Annotated[
        float, typer.Option(help="Share of each class's images to hold back and judge by; 0: none.")
    ] = 0.1,
    visualise: Annotated[
        bool,
        typer.Option(
            help="Also make a picture of each feature that is shown, and find places by masking where the network has "
            "no last map: on a CPU some 20 seconds per feature, after a first report."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the choice of those images.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 64,
    out: Out = Path("head"),
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Fit a last layer that reads a few features per class, and show what they are and where they err.

    Writes the head and report.html into --out. Example:

        pyinterp head --model default --data photos/ --features-per-class 20 --out results

    Features and path are kept there too. A second run computes no features again, and goes on with the path where
    --alpha, --n-lambdas, --grouped, --validation and --seed are the same; else it fits and replaces it. Features of
    other data or of another model are replaced only where --out was not given.
    """
    if features_per_class is not None and within is not None:
        raise typer.BadParameter("give --features-per-class or --within, not both.")
    if features_per_class is not None and not features_per_class > 0:
        raise typer.BadParameter("--features-per-class must be above 0.")
    if alpha == 0 and within is None:
        raise typer.BadParameter(
            "--alpha 0 makes no weight zero: all its heads use every feature, so there is no choice of how many. Give "
            "--alpha above 0, or --within."
        )
    if within is not None and validation == 0:
        raise typer.BadParameter("--within needs images to judge by: give --validation.")
    with told(debug):
        found = photograph_crops() if data is None else class_folders(data)
        _check(found.counts, validation)
        from pyinterp import models

        loaded = models.load(model, device=device)
        make_folder(out, _missing(loaded, found, out))
        say(f"{loaded.name}: {sum(found.counts.values()):,} images of {len(found.counts)} classes")
        asked = features_per_class
        if asked is None:
            asked = ASKED_OF_PHOTOGRAPHS if data is None else ASKED
        rule: dict[str, Any] = {"features_per_class": asked} if within is None else {"within": within}
        options: dict[str, Any] = {"alpha": alpha, "n_lambdas": n_lambdas, "grouped": grouped, "seed": seed}
        options |= {"validation": validation or None, "devices": [device]}
        if within is None:
            options["max_features_per_class"] = BEYOND * asked
        source = context.get_parameter_source("out")
        is_ours = source is not None and source.name == "DEFAULT"
        with _kept_in(out):
            features = _features(loaded, found, out, batch_size, is_ours)
            path = _path(features, out, options)
            chosen = _chosen(path, rule)
            save_result(chosen, out / "head")
            study = _study(loaded, chosen, path, features, found, validation, seed)
        report = _written(study, out)
        say(study.summary())
        if visualise:
            say(f"Making pictures of {len(study.cards)} features. The report without them is there: {report}")
            study = _with_pictures(study, loaded, chosen, features, found, seed, report)
            _written(study, out)
        say(f"Head: {(out / 'head').resolve()}.safetensors")
        say(f"Report: {report}")


def _check(counts: dict[str, int], validation: float) -> None:
    """Refuse what no head can be fitted to, before the network runs."""
    require_classes(counts, "A head")
    if not 0 <= validation < 1:
        fix = "Pass 0.1 to hold back a tenth, 0 to hold back none."
        raise ValueError(explain("--validation", "a share from 0 to below 1", validation, fix))
    most = max(counts.values())
    if validation > 0 and int(validation * most) == 0:
        share = math.ceil(100 / most) / 100
        fix = f"Pass --validation {share:g} or more, or 0 to hold back none."
        got = f"none: {validation:g} of at most {most} images per class is less than one"
        raise ValueError(explain("--validation", "images to hold back", got, fix))


def _missing(loaded: LoadedModel, data: Data, out: Path) -> int:
    """Bytes that the features still take in the folder."""
    import torch

    from pyinterp.models.classifier import find_classifier

    example = torch.rand(2, *loaded.input_shape, generator=torch.Generator().manual_seed(0))
    whole = 4 * sum(data.counts.values()) * find_classifier(loaded.model, example).features
    kept = out / "features.npy"
    return max(0, whole - (kept.stat().st_size if kept.exists() else 0))


@contextmanager
def _kept_in(out: Path) -> Iterator[None]:
    """Words for what an earlier run has left in the folder, and for what this one leaves."""
    try:
        yield
    except KeyboardInterrupt:
        if not (out / "features.json").exists():
            raise
        raise KeyboardInterrupt(
            f"interrupted; the same command goes on from what is kept in {out}."
        ) from None
    except ValueError as error:
        if not re.search("expected (features of this model|the two files of features)", str(error)):
            raise
        fix = f"delete {out / 'features'}.*, or choose another --out."
        raise ValueError(f"{error} An earlier run into {out} has left it there: {fix}") from error


def _features(loaded: LoadedModel, data: Data, out: Path, batch_size: int, is_ours: bool) -> Features:
    """Those of an earlier run, if they are of this model and these data; others are replaced if the folder is ours."""
    try:
        return _extracted(loaded, data, out, batch_size)
    except ValueError as error:
        if not is_ours or "expected features of this model" not in str(error):
            raise
    say(f"The features in {out} are of another model or of other data: they are computed anew.")
    _remove(out, "features.json", "features.npy")
    return _extracted(loaded, data, out, batch_size)


def _extracted(loaded: LoadedModel, data: Data, out: Path, batch_size: int) -> Features:
    from pyinterp.features import extract_features
    from pyinterp.features.data import require_readable

    # Features are of exactly these files: one that is repaired later would make all of them void.
    if data.source is not None and not (out / "features.json").exists():
        require_readable(data.source)
    found = extract_features(
        loaded.model,
        data.images,
        data.labels,
        file=out / "features",
        batch_size=batch_size,
        preprocess=loaded.preprocess,
    )
    return replace(found, names=data.names, class_names=data.class_names) if data.class_names else found


def _path(features: Features, out: Path, options: dict[str, Any]) -> SparsePath:
    """That of an earlier run, gone on with if it is of these options; else a new one in its place."""
    try:
        path = _fitted(features, out, options)
    except ValueError as error:
        other = _OTHER.search(str(error))
        if not other and not _DAMAGED.search(str(error)):
            raise
        say(f"The path in {out} {other[1] if other else 'is damaged'}: it is fitted anew.")
        _remove(out, "path.json", "path.safetensors")
        path = _fitted(features, out, options)
    if path.stopped == "interrupted":
        raise KeyboardInterrupt
    say(path.summary())
    return path


def _fitted(features: Features, out: Path, options: dict[str, Any]) -> SparsePath:
    from pyinterp.heads import fit_sparse_path

    with warnings.catch_warnings():
        # Its summary says it too.
        warnings.filterwarnings("ignore", "fit_sparse_path: expected every point", UserWarning)
        return fit_sparse_path(features, file=out / "path", **options)


def _remove(out: Path, *names: str) -> None:
    for name in names:
        (out / name).unlink(missing_ok=True)


def _chosen(path: SparsePath, rule: dict[str, Any]) -> SparseHead:
    with warnings.catch_warnings():
        # It advises what is no option here.
        warnings.filterwarnings("ignore", "select: expected a path that reaches", UserWarning)
        chosen = path.select(**rule)
    asked, found = rule.get("features_per_class"), chosen.features_per_class
    if asked is not None and abs(found - asked) > NEAR * asked:
        advice = "A larger --n-lambdas gives heads between these."
        width = chosen.weights.shape[1]
        if asked > width:
            advice = f"The network has only {width:,}."
        elif float(path.features_per_class.max()) < asked:
            advice = "It is the last one; a smaller --alpha lets heads use more."
        say(f"Asked for {asked:g} features per class; the nearest head of the path has {found:.1f}. {advice}")
    return chosen


def _study(
    loaded: LoadedModel,
    chosen: SparseHead,
    path: SparsePath,
    features: Features,
    data: Data,
    validation: float,
    seed: int,
) -> HeadStudy:
    from pyinterp.heads.illustrate import illustrate
    from pyinterp.heads.study import study_head
    from pyinterp.heads.validation import held_rows

    assert features.labels is not None
    rows = held_rows(features.labels, validation, seed) if validation else None
    study = study_head(loaded, chosen, features, path=path, rows=rows, images=data.images)
    return illustrate(study, loaded, chosen, features, data.images)


def _with_pictures(
    study: HeadStudy,
    loaded: LoadedModel,
    chosen: SparseHead,
    features: Features,
    data: Data,
    seed: int,
    report: Path,
) -> HeadStudy:
    from pyinterp.heads.illustrate import illustrate

    try:
        return illustrate(study, loaded, chosen, features, data.images, occlusion=True, made=True, seed=seed)
    except KeyboardInterrupt:
        told = f"interrupted; head and report are written, without pictures of the features: {report}"
        raise KeyboardInterrupt(told) from None


def _written(study: HeadStudy, out: Path) -> Path:
    """Save the study, and write the report."""
    from pyinterp.report import write_report

    save_result(study, out / "study")
    return write_report(study, out / "report.html").resolve()
