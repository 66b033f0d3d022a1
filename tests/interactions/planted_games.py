"""Games whose interactions are known: scores written out from the definition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from pyinterp.interactions import Interactions, interactions_from_values

N = 5
AND = {0b00011: 3.0, 0b00111: -1.0, 0b00001: 0.5}
OR = {0b11000: 2.0, 0b00001: 0.25, 0b10101: -0.25}
CONSTANT = -1.5


def scores(and_: dict[int, float], or_: dict[int, float], n: int, constant: float = 0.0) -> Tensor:
    """(2^n,) float64, subset by subset: what is inside it, and what it meets."""
    rows = []
    for subset in range(2**n):
        inside = sum(strength for code, strength in and_.items() if subset & code == code)
        met = sum(strength for code, strength in or_.items() if subset & code)
        rows.append(constant + inside + met)
    return torch.tensor(rows, dtype=torch.float64)


def effects(table: dict[int, float], n: int) -> Tensor:
    """(2^n,) float64."""
    return torch.tensor([table.get(code, 0.0) for code in range(2**n)], dtype=torch.float64)


def solution(and_: Tensor, or_: Tensor, **changes: Any) -> Any:
    """What a solver hands back that has found these."""
    objective = and_[1:].abs().sum() + or_[1:].abs().sum()
    found = {"and_": and_, "or_": or_, "objective": objective, "gap": 0.001, "converged": True}
    found |= {"iterations": 25, "primal_residual": 0.0}
    return SimpleNamespace(**(found | changes))


def planted(**options: Any) -> Interactions:
    """Five players, the effects above, unmerged."""
    and_, or_ = effects(AND, N), effects(OR, N)
    and_[0] = CONSTANT
    options = {"merge_first_order": False, "solution": solution(and_, or_)} | options
    return interactions_from_values(scores(AND, OR, N, CONSTANT), **options)
