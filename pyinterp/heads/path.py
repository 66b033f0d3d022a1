"""fit_sparse_path: linear heads from empty to dense, each the optimum of its elastic net."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from os import PathLike

import torch
from torch import Tensor

from pyinterp.elastic.evaluate import evaluate_points
from pyinterp.elastic.families import Family, family_of
from pyinterp.elastic.fista import solve_by_fista
from pyinterp.elastic.inner import Metric
from pyinterp.elastic.moments import moments
from pyinterp.elastic.penalty import Penalty, largest_strength
from pyinterp.elastic.rows import Rows
from pyinterp.elastic.saga import solve_by_saga
from pyinterp.elastic.solver import solve
from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.problem import WHERE, Problem, check_devices, check_grid, check_numbers, check_problem
from pyinterp.heads.sparse_path import SparsePath, remedy
from pyinterp.heads.trail import Solve, Trail
from pyinterp.heads.validation import Held, hold_out
from pyinterp.progress import Progress
from pyinterp.version import package_version

SOLVERS = ("gram", "fista", "saga")


def fit_sparse_path(
    features: Tensor | Features,
    labels: Tensor | None = None,
    *,
    alpha: float = 0.99,
    n_lambdas: int = 100,
    min_ratio: float = 1e-3,
    lambdas: Sequence[float] | None = None,
    tolerance: float = 1e-4,
    max_features_per_class: float | None = None,
    family: str = "multinomial",
    grouped: bool = False,
    sample_weights: Tensor | None = None,
    validation: float | tuple[Tensor, Tensor] | Features | None = None,
    solver: str = "gram",
    max_passes: int = 2000,
    devices: Sequence[str | torch.device] | None = None,
    file: str | PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> SparsePath:
    """Fit linear heads with ever more features: a regularisation path of the elastic net.

    Each head minimises mean_i w_i loss(W z_i + b, y_i) + lambda (alpha norm(W) + (1 - alpha) / 2 ||W||_F^2); see
    `SparsePath`. The path starts at lambda_max, the smallest lambda without any feature, falls geometrically to
    ``min_ratio`` of it, and starts each head from the one before.

    Args:
        features: (N, d) floats, or what `extract_features` gave; memory-mapped ones are read in chunks. float64
            features are worked on in float64, others in float32. They are standardised here.
        labels: (N,) class numbers from 0 on, every class with samples; for "gaussian" (N,) or (N, m) numbers. None
            takes those of the `Features`.
        alpha: 0 to 1, share of the penalty that makes zeros.
        n_lambdas: Points of the grid.
        min_ratio: Last lambda over the first.
        lambdas: A falling grid of your own instead.
        tolerance: Aim of every point's relative KKT violation; points that miss it are flagged.
        max_features_per_class: End the path at the first head with this many non-zero weights per class on average.
        family: "multinomial", "binary" (labels 0 and 1, one row of weights) or "gaussian".
        grouped: Penalise the length of each feature's column of weights: all classes use a feature, or none does.
        sample_weights: (N,) weights w_i >= 0 of the samples' losses; mean and std are weighted too, and so are losses
            and accuracies of the training samples and of a share held back.
        validation: A share of the samples to hold back, the same of each class and chosen by ``seed`` (of two or more
            samples at least one if there are enough, never all), or features and labels of others, without weights.
        solver: "gram" (steps in the metric of the Gram matrix), "fista" (the reference), or "saga" (minibatches).
        max_passes: Most readings of all rows for one point.
        devices: Where chunks of rows are held and worked on, in turn; None: where the features are. The result does
            not depend on their number.
        file: Path without suffix: the path so far is kept there every now and then, and a later call with the same
            data and arguments goes on from it, to the last bit as if it had never ended; at the end it holds the
            result, as `SparsePath.save` would write it, or the longer path that it held before. Where it can't be
            written, a warning says so.
        seed: Of the held-out share and of SAGA's order.
        progress: None shows a bar on a terminal; True, False, or a callable that gets {"done", "total", "seconds"}.

    Returns:
        The path; after Ctrl-C what there is of it, with ``stopped="interrupted"``.

    Raises:
        TypeError: Features or labels of a wrong type.
        ValueError: Shapes that don't fit; NaN (the rows are named); one class, or a class without samples; numbers out
            of range; devices that this torch can't use; a file of other data.
        OSError: The folder of the file can't be written to.

    Source: Wong, Santurkar and Madry, "Leveraging Sparse Linear Layers for Debuggable Deep Networks", ICML 2021, 2.1;
    the objective is that of their solver glm_saga, which averages over several targets where here they are summed.
    """
    alpha, n_lambdas, min_ratio, tolerance, max_passes, max_features_per_class = check_numbers(
        alpha, n_lambdas, min_ratio, tolerance, max_passes, max_features_per_class
    )
    places = None if devices is None else check_devices(devices)
    grid = None if lambdas is None else check_grid(lambdas)
    if solver not in SOLVERS:
        raise ValueError(explain(WHERE, "a solver", repr(solver), f"Choose one of {', '.join(SOLVERS)}."))
    problem = check_problem(WHERE, features, labels, sample_weights, family)
    held = hold_out(problem, validation, seed)
    mean, std = moments(problem.features, problem.weights, held.train)
    if not bool((std > 0).any()):
        fix = "Look at what they were made from."
        raise ValueError(explain(WHERE, "a feature that differs between samples", "constants only", fix))
    places = places or [problem.features.device]
    kind = family_of(family, problem.labels)
    rows = _rows(problem, held.train, mean, std, kind, places)
    bias, slope = rows.start()
    first = largest_strength(slope, alpha, grouped)
    if first == 0:
        fix = "Look at features and labels: no feature has another mean in any class."
        raise ValueError(explain(WHERE, "a feature that goes with the labels", "none", fix))
    if grid is None:
        grid = [first * min_ratio ** (i / max(1, n_lambdas - 1)) for i in range(n_lambdas)]
    known = features if isinstance(features, Features) else None
    common = {
        "mean": mean,
        "std": std,
        "alpha": alpha,
        "family": family,
        "grouped": grouped,
        "tolerance": tolerance,
        "samples": rows.count,
        "validation_samples": held.count,
        "settings": {
            "grid": grid,
            "lambda_max": first,
            "max_features_per_class": max_features_per_class,
            "solver": solver,
            "max_passes": max_passes,
            "seed": seed,
            "data": _fingerprint(problem, mean, std, slope),
        },
        "class_names": known.class_names if known else (),
        "classifier_name": known.classifier_name if known else "",
        "model_digest": known.model_digest if known else "",
        "version": package_version(),
    }
    trail = Trail(common, [Penalty(strength, alpha, grouped) for strength in grid], file)
    zero = torch.zeros(slope.shape, dtype=rows.dtype, device=rows.home)
    find = _finder(solver, rows, tolerance, max_passes, seed)
    stopped = trail.follow(
        find, (zero, bias.to(zero), rows.family.curvature / 4), max_features_per_class, progress
    )
    path = _judged(trail.path(stopped), rows, held, places)
    trail.keep(path)
    _warn(path)
    return path


def _rows(
    problem: Problem,
    used: Tensor | None,
    mean: Tensor,
    std: Tensor,
    family: Family,
    places: Sequence[torch.device],
) -> Rows:
    scale = torch.where(std > 0, std, torch.inf)
    return Rows(problem.features, problem.labels, problem.weights, mean, scale, family, places, used)


def _fingerprint(problem: Problem, mean: Tensor, std: Tensor, slope: Tensor) -> str:
    """Tells data from data: the statistics of the features, and their products with the labels."""
    digest = hashlib.sha256(str((len(problem.features), problem.family)).encode())
    for tensor in (mean, std, slope.cpu()):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _finder(solver: str, rows: Rows, tolerance: float, max_passes: int, seed: int) -> Solve:
    if solver == "fista":
        return partial(solve_by_fista, rows, tolerance=tolerance, max_passes=max_passes)
    if solver == "saga":
        return partial(
            solve_by_saga, rows, Metric(rows.gram()), tolerance=tolerance, max_passes=max_passes, seed=seed
        )
    return partial(solve, rows, Metric(rows.gram()), tolerance=tolerance, max_passes=max_passes)


def _judged(path: SparsePath, rows: Rows, held: Held, places: Sequence[torch.device]) -> SparsePath:
    """With the accuracies on the training rows, and all that is to be known on the validation rows."""
    losses, accuracy = evaluate_points(rows, path.weights, path.biases)
    empty = losses[:0]
    path = replace(path, train_accuracy=empty if path.family == "gaussian" else accuracy)
    if held.problem is None:
        return path
    other = _rows(held.problem, held.index, path.mean, path.std, rows.family, places)
    losses, accuracy = evaluate_points(other, path.weights, path.biases)
    return replace(
        path, validation_loss=losses, validation_accuracy=empty if path.family == "gaussian" else accuracy
    )


def _warn(path: SparsePath) -> None:
    missed = int((~path.converged).sum())
    if missed:
        wanted = f"every point below a KKT violation of {path.tolerance:g}"
        fix = f"path.converged tells which. {remedy(path)}"
        warnings.warn(explain(WHERE, wanted, f"{missed} of {len(path)} above it", fix), stacklevel=3)
