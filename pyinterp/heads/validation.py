"""Rows that no head is fitted to: a share held back, or other samples."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.problem import WHERE, Problem, check_problem, named


@dataclass(frozen=True)
class Held:
    """Which rows are fitted, and which are kept for validation.

    Attributes:
        train: (n,) int64 in rising order, or None for all.
        problem: The validation rows, or None.
        index: (v,) int64, which rows of `problem`; None for all.
    """

    train: Tensor | None
    problem: Problem | None
    index: Tensor | None

    @property
    def count(self) -> int:
        """Number of validation rows."""
        if self.problem is None:
            return 0
        return len(self.problem.features) if self.index is None else len(self.index)


def hold_out(problem: Problem, validation: Any, seed: int) -> Held:
    """What the argument ``validation`` of `fit_sparse_path` stands for.

    Raises:
        ValueError: A share that is none, or leaves a class without training samples; features or classes that the
            training samples don't have.
        TypeError: Neither a share nor features and labels.

    Warns:
        UserWarning: A share that leaves a class without validation samples.
    """
    if validation is None:
        return Held(None, None, None)
    if isinstance(validation, (int, float)) and not isinstance(validation, bool):
        held = _share(problem, float(validation), seed)
        _tell_missing(problem, held)
        return held
    if isinstance(validation, Features):
        return Held(None, _others(problem, validation, None), None)
    try:
        features, labels = validation
    except (TypeError, ValueError) as error:
        got = type(validation).__name__
        fix = "Pass 0.1 to hold a tenth back, or (features, labels) of other samples."
        raise TypeError(explain(WHERE, "validation as a share or a pair", got, fix)) from error
    return Held(None, _others(problem, features, labels), None)


def _share(problem: Problem, share: float, seed: int) -> Held:
    if not 0 < share < 1:
        raise ValueError(
            explain(WHERE, "a share of validation samples above 0 and below 1", share, "Pass 0.1.")
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(problem.features), generator=generator)
    mask = torch.ones(len(order), dtype=torch.bool)
    if problem.weights is not None:  # rows of weight 0 count for nothing: both sides need others
        order = order[problem.weights[order] > 0]
    group = torch.zeros_like(order) if problem.family == "gaussian" else problem.labels[order]
    counts = _shared_out(torch.bincount(group), share).tolist()
    held = torch.cat([order[group == k][:count] for k, count in enumerate(counts)])
    if not len(held):
        fix = "Raise validation, or leave it out."
        raise ValueError(explain(WHERE, "validation samples", f"none at a share of {share:g}", fix))
    mask[held] = False
    return Held(mask.nonzero()[:, 0], problem, held.sort().values)


def _shared_out(sizes: Tensor, share: float) -> Tensor:
    """How many of each class (K,) to hold back: all together the share, by largest remainders.

    No class is held back as a whole; if there are enough, each of two or more samples gives one at least.
    """
    wanted, most = share * sizes.double(), (sizes - 1).clamp(min=0)
    total = min(round(share * int(sizes.sum())), int(most.sum()))
    least = most.clamp(max=1)
    least = least if int(least.sum()) <= total else torch.zeros_like(least)
    counts = wanted.long().clamp(least, most)
    while missing := total - int(counts.sum()):
        lack = wanted - counts
        if missing > 0:
            counts[torch.where(counts < most, lack, -torch.inf).argmax()] += 1
        else:
            counts[torch.where(counts > least, lack, torch.inf).argmin()] -= 1
    return counts


def _tell_missing(problem: Problem, held: Held) -> None:
    if problem.family == "gaussian":
        return
    classes = int(problem.labels.max()) + 1
    counts = torch.bincount(problem.labels[held.index], minlength=classes)
    missing = (counts == 0).nonzero()[:, 0].tolist()
    if missing:
        fix = "Raise validation, or pass features and labels of other samples."
        wanted, got = "validation samples of every class", f"none of class {named(missing)}"
        warnings.warn(explain(WHERE, wanted, got, fix), stacklevel=4)


def _others(problem: Problem, features: Any, labels: Any) -> Problem:
    others = check_problem(f"{WHERE}, validation", features, labels, None, problem.family, complete=False)
    width, wanted = others.features.shape[1], problem.features.shape[1]
    if width != wanted:
        fix = "Extract them with the same network."
        raise ValueError(explain(WHERE, f"validation samples of {wanted} features", width, fix))
    if problem.family == "gaussian":
        if others.labels.shape[1] != problem.labels.shape[1]:
            got = others.labels.shape[1]
            fix = "Pass the same targets for both."
            raise ValueError(explain(WHERE, f"{problem.labels.shape[1]} validation targets", got, fix))
    elif int(others.labels.max()) > int(problem.labels.max()):
        got = int(others.labels.max())
        fix = "Number the classes alike in both."
        raise ValueError(explain(WHERE, f"validation labels up to {int(problem.labels.max())}", got, fix))
    return others


def held_rows(labels: Tensor, share: float, seed: int) -> Tensor:
    """The rows that ``fit_sparse_path(..., validation=share, seed=seed)`` holds back of classes (N,), in rising order.

    Sample weights of 0 would change them: such rows are not held back.

    Raises:
        ValueError: As there.
    """
    index = _share(Problem(labels[:, None], labels, None, "multinomial"), share, seed).index
    assert index is not None
    return index
