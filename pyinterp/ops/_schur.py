"""The Schur basis of functions on subsets: what treats all players alike becomes small blocks there.

A matrix F(S, T) that depends on the sizes of S, T and S ∩ T alone commutes with every permutation of the n players. By
Schur-Weyl duality an orthogonal change of basis splits it into blocks of d x d, d = n + 1, n - 1, n - 3, ..., each
repeated C(n, q) - C(n, q - 1) times with d = n - 2q + 1. The change of basis takes n rounds of plane rotations, whose
angles are the Clebsch-Gordan coefficients of coupling one more two-state system; so F, or a function of it, is applied
in O(n 2^n) operations, and as exactly as orthogonal matrices are.

Source: Bacon, Chuang, Harrow, "The Quantum Schur and Clebsch-Gordan Transforms", SODA 2007.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb, sqrt
from typing import NamedTuple

import torch
from torch import Tensor


class Schur(NamedTuple):
    """The change of basis for n players, and where the blocks lie in it.

    Attributes:
        pairs: (P, 2) int32. In round k, which couples player n - 1 - k, numbers are addressed by the last k + 1
            players: rows of 2^(n - k - 1). Each pair names two rows that are rotated into each other.
        angles: (P, 2) float64, cosine and sine of each rotation.
        rounds: (n + 1,) int64, round k has the pairs [rounds[k], rounds[k + 1]).
        paths: (2^n,) int32, after the rounds: the indices of each block's rows, block after block.
        kinds: (n // 2 + 1, 4) int64, for each size of block: its d, how many there are, the place of the first in
            `paths`, and the place of its matrix in a table of all matrices, one after the other.
    """

    pairs: Tensor
    angles: Tensor
    rounds: Tensor
    paths: Tensor
    kinds: Tensor


@lru_cache(maxsize=32)
def schur(n: int) -> Schur:
    """Return the change of basis for n players, on the CPU."""
    pairs, angles, rounds = [torch.zeros(0, 2)], [torch.zeros(0, 2)], [0]
    blocks = {1: torch.zeros(1, 1, dtype=torch.int64)}  # d: the rows (count, d) of all blocks of this size
    for _ in range(n):
        coupled: dict[int, list[Tensor]] = {}
        for d, rows in blocks.items():
            without, present = 2 * rows, 2 * rows + 1
            t = torch.arange(1, d, dtype=torch.float64)
            turn = torch.stack([((d - t) / d).sqrt(), (t / d).sqrt()], 1)
            pairs.append(torch.stack([without[:, 1:], present[:, :-1]], 2).view(-1, 2))
            angles.append(turn.repeat(len(rows), 1))
            coupled.setdefault(d + 1, []).append(torch.cat([without, present[:, -1:]], 1))
            if d > 1:
                coupled.setdefault(d - 1, []).append(present[:, :-1])
        blocks = {d: torch.cat(parts) for d, parts in coupled.items()}
        rounds.append(sum(map(len, pairs)))
    paths: list[Tensor] = []
    kinds, place, matrix = [], 0, 0
    for d in range(n + 1, 0, -2):
        kinds.append([d, len(blocks[d]), place, matrix])
        paths.append(blocks[d].reshape(-1))
        place += blocks[d].numel()
        matrix += d * d
    return Schur(
        torch.cat(pairs).to(torch.int32),
        torch.cat(angles).to(torch.float64),
        torch.tensor(rounds),
        torch.cat(paths).to(torch.int32),
        torch.tensor(kinds),
    )


def rotate(x: Tensor, basis: Schur, back: bool = False) -> Tensor:
    """Take functions on subsets (..., 2^n) into the Schur basis, or back."""
    x = x.clone()
    n = len(basis.rounds) - 1
    for k in reversed(range(n)) if back else range(n):
        part = slice(int(basis.rounds[k]), int(basis.rounds[k + 1]))
        first, second = basis.pairs[part].long().unbind(1)
        cosine, sine = basis.angles[part].to(x.dtype)[..., None].unbind(1)
        rows = x.view(*x.shape[:-1], 2 ** (k + 1), 2 ** (n - k - 1))
        a, b = rows[..., first, :], rows[..., second, :]
        sine = -sine if back else sine
        rows[..., first, :], rows[..., second, :] = cosine * a + sine * b, cosine * b - sine * a
    return x


def apply_blocks(x: Tensor, basis: Schur, blocks: Tensor) -> Tensor:
    """Multiply functions in the Schur basis (..., 2^n) by the matrices `blocks`, laid out as `Schur.kinds` says."""
    y = torch.empty_like(x)
    for d, count, first, matrix in basis.kinds.tolist():
        rows = basis.paths[first : first + d * count].long().view(count, d)
        y[..., rows] = x[..., rows] @ blocks[matrix : matrix + d * d].view(d, d).T
    return y


@lru_cache(maxsize=64)
def inverse_gram(n: int, slack: float) -> Tensor:
    """Blocks of (Z Zᵀ + Y Yᵀ + slack)^-1 over non-empty subsets; the empty set's row and column are 1 / (1 + slack).

    Z(T, S) = 1 where S ⊆ T, Y(T, S) = 1 where S meets T. In the block of q, with m = n - 2q and in the basis of sums
    over all sets of t = 0 ... m players, Z is C(t', t) sqrt(C(m, t') / C(m, t)) and 1 - Y, which pairs disjoint sets,
    is (-1)^q C(m - t', t) sqrt(C(m, t') / C(m, t)); the matrix of ones lies in the first block alone.
    """
    blocks = []
    for q in range(n // 2 + 1):
        m = n - 2 * q
        root = [sqrt(comb(m, t)) for t in range(m + 1)]
        z = torch.empty(m + 1, m + 1, dtype=torch.float64)
        y = torch.empty_like(z)
        for row in range(m + 1):
            for column in range(m + 1):
                ratio = root[row] / root[column]
                z[row, column] = comb(row, column) * ratio
                y[row, column] = -((-1) ** q) * comb(m - row, column) * ratio
                if q == 0:
                    y[row, column] += root[row] * root[column]
        if q == 0:
            for matrix in (z, y):
                matrix[0] = matrix[:, 0] = 0
        both = torch.cat([z, y], 1)
        if q == 0:
            both = torch.cat([both, torch.eye(m + 1, 1, dtype=torch.float64)], 1)
        left, singular, _ = torch.linalg.svd(both, full_matrices=False)
        blocks.append((left / (singular**2 + slack)) @ left.T)
    return torch.cat([block.reshape(-1) for block in blocks])
