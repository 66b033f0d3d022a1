"""Heads with a given support: exactly k features per class, without the shrinkage of the penalty."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.heads.families import family_of
from pyinterp.heads.head import SparseHead
from pyinterp.heads.problem import check_problem
from pyinterp.heads.rows import Rows
from pyinterp.heads.select import head_at
from pyinterp.heads.sparse_path import SparsePath

RIDGE = 1e-4
MOST_STEPS = 500
ENOUGH = 1e-6  # largest gradient at which a fit ends


def refit(head: SparseHead, features: Tensor, labels: Tensor, *, ridge: float = RIDGE) -> SparseHead:
    """Fit the non-zero weights and the biases anew, without the l1 penalty (debiased); zeros stay zeros.

    Minimises mean loss + ridge / 2 ||W||^2 over the support by L-BFGS, in float64.

    Args:
        head: Whose support is kept.
        features: (N, d), the training samples.
        labels: (N,), or (N, m) for regression.
        ridge: Keeps weights finite where the classes can be separated.

    Raises:
        ValueError: Features or labels that don't fit the head.
    """
    if not ridge >= 0:
        raise ValueError(explain("refit", "ridge of at least 0", ridge, f"Pass {RIDGE}."))
    problem = check_problem(features, labels, None, head.family)
    family = family_of(head.family, problem.labels)
    if family.outputs != len(head.weights) or features.shape[1] != head.weights.shape[1]:
        wanted = f"{head.weights.shape[1]} features and {len(head.weights)} outputs"
        got = f"{features.shape[1]} and {family.outputs}"
        raise ValueError(explain("refit", wanted, got, "Pass the samples that the path was fitted to."))
    scale = torch.where(head.std > 0, head.std, torch.inf)
    rows = Rows(
        problem.features.double(), problem.labels, None, head.mean, scale, family, [torch.device("cpu")]
    )
    used = (head.weights != 0).nonzero(as_tuple=True)
    values = head.weights[used].double().requires_grad_()
    bias = head.bias.double().requires_grad_()
    search = torch.optim.LBFGS(
        [values, bias],
        max_iter=MOST_STEPS,
        tolerance_grad=ENOUGH,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        weights = torch.zeros(head.weights.shape, dtype=torch.float64)
        weights[used] = values.detach()
        at = rows.gradient(weights, bias.detach())
        values.grad, bias.grad = at.weights[used] + ridge * values.detach(), at.bias
        return torch.tensor(at.loss) + ridge / 2 * values.detach().square().sum()

    search.step(loss)
    loss()
    assert values.grad is not None and bias.grad is not None
    left = float(torch.cat([values.grad, bias.grad]).abs().max())
    weights = torch.zeros_like(head.weights)
    weights[used] = values.detach().to(weights.dtype)
    origin = {**head.origin, "refitted": {"ridge": ridge, "largest_gradient": left}}
    for stale in ("kkt", "converged", "train_accuracy", "validation_accuracy", "validation_loss"):
        origin.pop(stale, None)
    return replace(head, weights=weights, bias=bias.detach().to(head.bias.dtype), origin=origin)


def exactly(
    path: SparsePath, features: Tensor, labels: Tensor, features_per_class: int, *, ridge: float = RIDGE
) -> SparseHead:
    """A head with exactly k features for every class: the path pruned, and refitted to the samples.

    Each class takes its k largest weights at the first point where it has k; a class that never has so many keeps what
    it has, with a warning.

    Args:
        path: Ungrouped, multinomial or binary.
        features: (N, d), the training samples.
        labels: (N,).
        features_per_class: k.
        ridge: See `refit`.

    Raises:
        ValueError: k below 1 or above d; samples that don't fit the path.
    """
    count, width = features_per_class, path.weights.shape[2]
    if not 1 <= count <= width:
        raise ValueError(explain("exactly", f"1 to {width} features per class", count, "Pass another k."))
    enough = (path.weights != 0).sum(2) >= count
    points = torch.where(enough.any(0), enough.to(torch.int8).argmax(0), len(path) - 1)
    weights = path.weights[points, torch.arange(len(points))]
    kept = weights.abs().topk(count, dim=1).indices
    pruned = torch.zeros_like(weights).scatter(1, kept, weights.gather(1, kept))
    short = (~enough.any(0)).nonzero()[:, 0].tolist()
    if short:
        got = f"fewer for class {', '.join(map(str, short[:5]))}"
        fix = "Fit the path further: a smaller min_ratio or a larger max_features_per_class."
        warnings.warn(explain("exactly", f"{count} features for every class", got, fix), stacklevel=2)
    head = head_at(path, int(points.max()))
    origin = {**head.origin, "pruned_to": count}
    return refit(replace(head, weights=pruned, origin=origin), features, labels, ridge=ridge)
