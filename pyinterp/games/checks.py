"""Arguments of the wrong type, told before anything happens."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyinterp.errors import explain


def require_tensor(where: str, wanted: str, value: Any, fix: str) -> None:
    """Raise TypeError unless ``value`` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(explain(where, wanted, type(value).__name__, fix))


def require_batch_size(batch_size: Any) -> None:
    """Raise TypeError or ValueError unless it is None or a whole number from 1 on."""
    fix = "Or leave it out: it is found."
    if batch_size is None:
        return
    if not isinstance(batch_size, int) or isinstance(batch_size, bool):
        raise TypeError(explain("batch_size", "a whole number", repr(batch_size), fix))
    if batch_size < 1:
        raise ValueError(explain("batch_size", "at least 1", batch_size, fix))
