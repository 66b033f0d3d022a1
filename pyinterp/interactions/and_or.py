"""The sparse split of a game into AND and OR effects, with a certificate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.interactions.harsanyi import reconstruct
from pyinterp.interactions.sgd import descend
from pyinterp.interactions.subsets import check_values
from pyinterp.ops._and_or import Norm, SumOfLargest, solve
from pyinterp.ops.and_or_solve import and_or_solve

MOST_PLAYERS = 20
SOLVERS = ("splitting", "sgd")


@dataclass(frozen=True)
class SparseAndOr:
    """AND and OR effects of one game, or of many; ``...`` are the games' dimensions.

    Attributes:
        and_: (..., 2^n) I_and(S), in the dtype of the values (16-bit values: float32); entry 0 holds v(∅).
        or_: (..., 2^n) I_or(S); entry 0 is 0.
        residual: (..., 2^n) ε(T): ``reconstruct(and_, or_) = values + residual``.
        objective: (...,) float64, the sum of \\|I_and(S)\\| + \\|I_or(S)\\| over S ≠ ∅.
        gap: (...,) float64, no split has an objective that is smaller by more than this share of this one: a lower
            bound comes with the solution, from the dual problem. NaN where the solver has none ("sgd").
        primal_residual: (...,) float64, by how much \\|residual\\| exceeds its bound at most: rounding alone.
        iterations: (...,) int64.
        converged: (...,) bool, gap <= tolerance.
    """

    and_: Tensor
    or_: Tensor
    residual: Tensor
    objective: Tensor
    gap: Tensor
    primal_residual: Tensor
    iterations: Tensor
    converged: Tensor


def sparse_and_or(
    values: Tensor,
    noise: float = 0.04,
    *,
    solver: Literal["splitting", "sgd"] = "splitting",
    tolerance: float = 1e-3,
    max_iterations: int = 20_000,
    learning_rate: float = 1e-5,
) -> SparseAndOr:
    """Split games into few AND and OR effects: the split whose effects have the least sum of sizes.

        minimise  ‖I_and‖₁ + ‖I_or‖₁  over γ and ε,  \\|ε(T)\\| <= noise \\|v(N) - v(∅)\\|,  ε(∅) = 0,
        I_and = harsanyi_and((v + ε) / 2 + γ),  I_or = harsanyi_or((v + ε) / 2 - γ)

    The sums leave out the empty set, whose effect is the offset v(∅). Splits may tie: the effect of a single player is
    the same as AND and as OR, and how it is shared between the two is arbitrary; and as x_i + x_j is also
    (x_i and x_j) + (x_i or x_j), what a pair has of both kinds is given to its two players, which never costs more.

    Args:
        values: (..., 2^n) v(S), n <= 20, floating point; bit i of an index says that player i is present.
        noise: How much of each value may be left unexplained, as a share of \\|v(N) - v(∅)\\|; 0: nothing.
        solver: "splitting" runs until a lower bound proves the objective to be within `tolerance` of the least one
            (`pyinterp.ops.and_or_solve`). "sgd" is the recipe of the papers, for comparison: `max_iterations` steps of
            gradient descent with momentum 0.9 and a learning rate that falls to a tenth; it knows no gap.
        tolerance: See `solver`.
        max_iterations: Where the tolerance is not reached by then, a warning says so.
        learning_rate: Of "sgd" alone.

    Raises:
        ValueError: Wrong length, NaN or infinite values (the message says for which subsets), noise outside [0, 1).
        TypeError: `values` holds no floating-point numbers.

    Source: Li and Zhang, "Does a Neural Network Really Encode Symbolic Concepts?", ICML 2023; noise term and its
    default from Cheng et al., "Layerwise Change of Knowledge in Neural Networks", ICML 2024.
    """
    rows, bound = _games("sparse_and_or", values, noise)
    if solver not in SOLVERS:
        fix = "Use the default: it proves how good it is."
        raise ValueError(explain("sparse_and_or", 'solver="splitting" or "sgd"', repr(solver), fix))
    if solver == "splitting":
        and_, or_, report = and_or_solve(rows, bound, tolerance, max_iterations)
        and_, or_ = _prefer_players(and_, or_)
        _, lower, iterations = report.unbind(1)
    else:
        and_, or_ = descend(rows, bound, max_iterations, learning_rate)
        lower, iterations = torch.full_like(bound, torch.nan), torch.full_like(bound, max_iterations)
    objective = (and_[:, 1:].abs() + or_[:, 1:].abs()).sum(1)
    found = _result(values, and_, or_, bound, objective, lower, iterations, tolerance)
    if solver == "splitting" and not bool(found.converged.all()):
        _warn("sparse_and_or", found, tolerance)
    return found


def sparse_and_or_jointly(
    values: Tensor,
    noise: float = 0.02,
    *,
    private: float = 0.1,
    tolerance: float = 1e-3,
    max_iterations: int = 20_000,
) -> SparseAndOr:
    """Split the games of several models on one input so that they share effects: generalisable interactions.

        minimise  sum over S of (1 - private) max over i of \\|I_i(S)\\| + private · sum over i of \\|I_i(S)\\|,

    for AND and OR effects, where each game i keeps its own split and its own ε_i as in `sparse_and_or`. An effect
    that one model has anyway costs the others little. (The published recipe also bounds how far the splits γ_i may lie
    apart, by half of the mean v(N) - v(∅); here they are free.)

    Args:
        values: (models, 2^n) v_i(S), n <= 20.
        noise: As in `sparse_and_or`, for each model.
        private: In [0, 1]: 1 solves the games separately, 0 charges the largest effect alone.
        tolerance: As in `sparse_and_or`.
        max_iterations: As in `sparse_and_or`.

    Returns:
        Effects (models, 2^n); `objective`, `gap`, `iterations` and `converged` are those of the joint problem, ().

    Raises:
        ValueError: As `sparse_and_or`; values of another number of dimensions, or `private` outside [0, 1].
        TypeError: `values` holds no floating-point numbers.

    Source: Chen et al., "Defining and Extracting Generalizable Interaction Primitives from DNNs", ICLR 2024.
    """
    if values.dim() != 2 or len(values) == 0:
        fix = "Stack the scores of the models, of the same players on the same input."
        raise ValueError(
            explain("sparse_and_or_jointly", "values of shape (models, 2^n)", tuple(values.shape), fix)
        )
    if not 0 <= private <= 1:
        raise ValueError(
            explain("sparse_and_or_jointly", "private in [0, 1]", private, "The paper uses 0.1.")
        )
    rows, bound = _games("sparse_and_or_jointly", values, noise)
    norm: Norm = SumOfLargest(private)
    solution = solve(rows, bound, norm, tolerance, max_iterations)
    and_, or_ = solution.effects
    and_[:, 0] = rows[:, 0]
    objective, lower, iterations = (
        torch.tensor(float(number), dtype=torch.float64, device=values.device)
        for number in (solution.objective, solution.lower_bound, solution.iterations)
    )
    found = _result(values, and_, or_, bound, objective, lower, iterations, tolerance)
    if not bool(found.converged):
        _warn("sparse_and_or_jointly", found, tolerance)
    return found


def check_split(where: str, noise: Any, players: int) -> None:
    """Raise unless a game of so many players can be split with this share of noise."""
    if players > MOST_PLAYERS:
        fix = "Group the players, or choose the most relevant ones."
        raise ValueError(explain(where, f"at most {MOST_PLAYERS} players", players, fix))
    if not isinstance(noise, (int, float)):
        raise TypeError(
            explain(where, "a number in [0, 1) as noise", repr(noise), "The papers use 0.02 to 0.05.")
        )
    if not 0 <= noise < 1:
        raise ValueError(explain(where, "noise in [0, 1)", noise, "The papers use 0.02 to 0.05."))


def _games(where: str, values: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Check, and return float64 rows (games, 2^n) and their bounds (games,)."""
    check_split(where, noise, check_values(where, values))
    rows = values.detach().double().reshape(-1, values.shape[-1])
    return rows, noise * (rows[:, -1] - rows[:, 0]).abs()


def _prefer_players(and_: Tensor, or_: Tensor) -> tuple[Tensor, Tensor]:
    """Give what pairs have of both kinds, with one sign, to their players."""
    and_, or_ = and_.clone(), or_.clone()
    n = and_.shape[1].bit_length() - 1
    if n < 2:
        return and_, or_
    first, second = torch.combinations(torch.arange(n, device=and_.device)).unbind(1)
    pairs = 2**first + 2**second
    a, o = and_[:, pairs], or_[:, pairs]
    shared = torch.where(a * o > 0, a.sign() * torch.minimum(a.abs(), o.abs()), 0)
    and_[:, pairs] -= shared
    or_[:, pairs] -= shared
    for player in (first, second):
        and_.index_add_(1, 2**player, shared)
    return and_, or_


def _result(
    values: Tensor,
    and_: Tensor,
    or_: Tensor,
    bound: Tensor,
    objective: Tensor,
    lower: Tensor,
    iterations: Tensor,
    tolerance: float,
) -> SparseAndOr:
    games = values.shape[:-1] if objective.dim() else ()
    residual = reconstruct(and_, or_) - values.detach().double().reshape(and_.shape)
    excess = (residual.abs() - bound[:, None]).clamp(min=0).amax(1)
    gap = torch.where(objective > 0, (objective - lower) / objective.clamp(min=1e-300), 0 * lower)
    dtype = values.dtype if values.dtype == torch.float64 else torch.float32
    and_, or_, residual = (part.to(dtype).reshape(values.shape) for part in (and_, or_, residual))
    return SparseAndOr(
        and_,
        or_,
        residual,
        objective.reshape(games),
        gap.reshape(games),
        excess.reshape(values.shape[:-1]),
        iterations.long().reshape(games),
        (gap <= tolerance).reshape(games),
    )


def _warn(where: str, found: SparseAndOr, tolerance: float) -> None:
    missed = found.gap[~found.converged] if found.gap.dim() else found.gap[None]
    warnings.warn(
        f"{where}: expected a gap of at most {tolerance:g}, got {float(missed.max()):.2g} in "
        f"{len(missed)} of {found.gap.numel()} games. Raise max_iterations.",
        stacklevel=3,
    )
