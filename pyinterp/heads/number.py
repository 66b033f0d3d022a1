"""Numbers that a user hands over, checked."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain


def checked_number(where: str, expected: str, value: Any, right: Callable[[float], bool], fix: str) -> float:
    """A number as a float; ``right`` says whether it will do, and must refuse NaN.

    Raises:
        ValueError: No number, or a wrong one; ``where``, ``expected`` and ``fix`` are those of `explain`.
    """
    try:
        found = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = math.nan
    if not right(found):
        raise ValueError(explain(where, expected, reprlib.repr(value), fix))
    return found


def whole(value: Any) -> int | None:
    """A whole number as an int; None for anything else, truth values included."""
    if isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
