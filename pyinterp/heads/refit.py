"""Heads with a given support: exactly k features per class, without the shrinkage of the penalty."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from pyinterp.elastic.families import family_of
from pyinterp.elastic.rows import Rows
from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.head import SparseHead, changed
from pyinterp.heads.problem import check_problem
from pyinterp.heads.select import head_at
from pyinterp.heads.sparse_path import SparsePath

RIDGE = 1e-4
MOST_STEPS = 500
AIM = 1e-6  # largest gradient at which a fit ends
ENOUGH = 1e-4  # largest gradient of a fit that is taken without a warning


def refit(
    head: SparseHead,
    features: Tensor | Features,
    labels: Tensor | None = None,
    *,
    ridge: float = RIDGE,
    sample_weights: Tensor | None = None,
) -> SparseHead:
    """Fit the non-zero weights and the biases anew, without the l1 penalty (debiased); zeros stay zeros.

    Minimises mean_i w_i loss_i + ridge / 2 ||W||^2 over the support by L-BFGS, in float64 and where the features are.

    Args:
        head: Whose support is kept.
        features: (N, d), or what `extract_features` gave: the training samples, `held_rows` left out.
        labels: (N,), or (N, m) for regression; None takes those of the features.
        ridge: Keeps weights finite where the classes can be separated.
        sample_weights: (N,) the w_i.

    Returns:
        The head, whose ``origin["refitted"]`` tells the ridge and the largest gradient that is left; a warning where
        that is not small.

    Raises:
        TypeError: Features or labels of a wrong type.
        ValueError: Features or labels that don't fit the head.
    """
    return _refitted("refit", head, features, labels, ridge, sample_weights)


def _refitted(
    where: str,
    head: SparseHead,
    features: Tensor | Features,
    labels: Tensor | None,
    ridge: float,
    sample_weights: Tensor | None,
) -> SparseHead:
    if not 0 <= ridge < torch.inf:
        raise ValueError(explain(where, "ridge of at least 0", ridge, f"Pass {RIDGE}."))
    problem = check_problem(where, features, labels, sample_weights, head.family)
    family = family_of(head.family, problem.labels)
    width = problem.features.shape[1]
    if (family.outputs, width) != tuple(head.weights.shape):
        wanted = f"{head.weights.shape[1]} features and {len(head.weights)} outputs"
        got = f"{width} and {family.outputs}"
        raise ValueError(explain(where, wanted, got, "Pass the samples that the path was fitted to."))
    place = problem.features.device
    used = (head.weights != 0).any(0)
    used[0] |= not used.any()
    read = used.nonzero()[:, 0]  # no other column is copied
    scale = torch.where(head.std > 0, head.std, torch.inf)[read]
    rows = Rows(
        problem.features[:, read.to(place)].double(),
        problem.labels,
        problem.weights,
        head.mean[read],
        scale,
        family,
        [place],
    )
    support = (head.weights[:, read] != 0).to(place)
    start = head.weights[:, read].to(place, torch.float64)
    values, bias, left = _minimised(rows, start, head.bias.to(place, torch.float64), support, ridge)
    weights = torch.zeros_like(head.weights)
    weights[:, read] = values.to(weights)
    if left > ENOUGH:
        fix = "Raise ridge, for example where the classes can be separated."
        warnings.warn(explain(where, "an optimum", f"a largest gradient of {left:.1e}", fix), stacklevel=3)
    return changed(head, weights, bias.to(head.bias), refitted={"ridge": ridge, "largest_gradient": left})


def exactly(
    path: SparsePath,
    features: Tensor | Features,
    labels: Tensor | None,
    features_per_class: int,
    *,
    ridge: float = RIDGE,
    sample_weights: Tensor | None = None,
) -> SparseHead:
    """A head with exactly k features for every class: the path pruned, and refitted to the samples.

    Each class takes its k largest weights at the first point where it has k; a class that never has so many keeps what
    it has at the end, with a warning.

    Args:
        path: Of any family; the classes of a grouped one may end with different features.
        features: (N, d), or what `extract_features` gave: the training samples, `held_rows` left out.
        labels: (N,), or (N, m) for regression; None takes those of the features.
        features_per_class: k.
        ridge: See `refit`.
        sample_weights: See `refit`.

    Raises:
        TypeError: Features or labels of a wrong type.
        ValueError: k below 1 or above d; samples that don't fit the path.
    """
    count, width = features_per_class, path.weights.shape[2]
    if not 1 <= count <= width or count != int(count):
        raise ValueError(explain("exactly", f"1 to {width} features per class", count, "Pass another k."))
    enough = ((path.weights != 0).sum(2) >= count).cpu()
    points = torch.where(enough.any(0), enough.to(torch.int8).argmax(0), len(path) - 1)
    weights = path.weights[points, torch.arange(len(points))].cpu()
    kept = weights.abs().topk(int(count), dim=1).indices
    pruned = torch.zeros_like(weights).scatter(1, kept, weights.gather(1, kept))
    short = (~enough.any(0)).nonzero()[:, 0].tolist()
    if short:
        got = f"fewer for class {', '.join(map(str, short[:5]))}{', ...' if len(short) > 5 else ''}"
        fix = "Fit the path further: a smaller min_ratio or a larger max_features_per_class."
        warnings.warn(explain("exactly", f"{count} features for every class", got, fix), stacklevel=2)
    head = replace(head_at(path, int(points.max())), weights=pruned)
    head = _refitted("exactly", head, features, labels, ridge, sample_weights)
    origin = {key: value for key, value in head.origin.items() if key not in ("point", "lambda")}
    return replace(head, origin={**origin, "points": points.tolist(), "pruned_to": int(count)})


def _minimised(
    rows: Rows, weights: Tensor, bias: Tensor, support: Tensor, ridge: float
) -> tuple[Tensor, Tensor, float]:
    """The best weights (K, d) on the support and biases (K,), and the largest gradient there."""
    values, bias = weights[support].requires_grad_(), bias.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [values, bias],
        max_iter=MOST_STEPS,
        tolerance_grad=AIM,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def spread() -> Tensor:
        return torch.zeros_like(weights).masked_scatter(support, values.detach())

    def loss() -> Tensor:
        at = rows.gradient(spread(), bias.detach())
        values.grad, bias.grad = at.weights[support] + ridge * values.detach(), at.bias
        return torch.tensor(at.loss, dtype=torch.float64) + ridge / 2 * values.detach().square().sum().cpu()

    search.step(loss)
    loss()
    assert values.grad is not None and bias.grad is not None
    return spread(), bias.detach(), float(torch.cat([values.grad, bias.grad]).abs().max())
