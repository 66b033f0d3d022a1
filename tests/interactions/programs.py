"""The sparse split as a linear program, straight from the definition: the oracle of the solver."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import bmat, csr_matrix, identity


def atoms(n: int) -> np.ndarray:
    """(2^n - 1, 2 (2^n - 1)): what each AND and each OR effect gives at each non-empty subset."""
    subsets = range(1, 2**n)
    inside = [[float(s & t == s) for s in subsets] for t in subsets]
    meeting = [[float(s & t != 0) for s in subsets] for t in subsets]
    return np.hstack([inside, meeting])


def least_sum(values: np.ndarray, bound: float) -> float:
    """The least sum of |effects| of one game (2^n,) that misses no value by more than `bound`."""
    n = len(values).bit_length() - 1
    given = atoms(n)
    both = csr_matrix(np.hstack([given, -given]))  # effects as differences of non-negative numbers
    goal = values[1:] - values[0]
    cost = np.ones(both.shape[1])
    if bound == 0:
        found = linprog(cost, A_eq=both, b_eq=goal, method="highs")
    else:
        found = linprog(
            cost,
            A_ub=bmat([[both], [-both]]),
            b_ub=np.concatenate([goal + bound, bound - goal]),
            method="highs",
        )
    assert found.status == 0
    return float(found.fun)


def least_joint_sum(values: np.ndarray, bounds: np.ndarray, private: float) -> float:
    """The same for games (models, 2^n): (1 - private) times the largest, plus private times the sum over the models."""
    models, size = values.shape
    given = atoms(size.bit_length() - 1)
    effects = given.shape[1]
    both, one = csr_matrix(np.hstack([given, -given])), identity(effects)
    sizes = csr_matrix(np.hstack([np.eye(effects), np.eye(effects)]))
    rows, limits = [], []
    for i in range(models):
        goal = values[i, 1:] - values[i, 0]
        others: list = [None] * models
        for sign, limit in ((1, goal + bounds[i]), (-1, bounds[i] - goal)):
            row = others.copy()
            row[i] = sign * both
            rows.append([*row, csr_matrix((len(goal), effects))])
            limits.append(limit)
        row = others.copy()
        row[i] = sizes
        rows.append([*row, -one])
        limits.append(np.zeros(effects))
    cost = np.concatenate([np.full(models * 2 * effects, private), np.full(effects, 1 - private)])
    found = linprog(cost, A_ub=bmat(rows), b_ub=np.concatenate(limits), method="highs")
    assert found.status == 0
    return float(found.fun)
