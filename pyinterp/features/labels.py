"""Labels in one form: classes as int64 (N,), targets of a regression as floats (N, m)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain


def as_labels(where: str, labels: Any, rows: int | None) -> Tensor:
    """Bring labels into their form, on the CPU.

    Args:
        where: Who asks, for the messages.
        labels: A tensor, array or list: whole numbers (N,), or floats (N,) or (N, m).
        rows: N; None takes any.

    Raises:
        ValueError: Another shape, another count, or NaN or infinite targets.
        TypeError: No numbers.
    """
    try:
        given = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        fix = "Pass a tensor, or a list of numbers; names of classes must be numbered first."
        raise TypeError(explain(where, "labels that are numbers", type(labels).__name__, fix)) from error
    if given.is_complex():
        raise TypeError(explain(where, "labels that are numbers", str(given.dtype), "Pass their real parts."))
    if given.is_floating_point():
        given = given[:, None] if given.dim() == 1 else given
    else:
        given = given.to(torch.int64)
    if given.dim() != (2 if given.is_floating_point() else 1):
        fix = "Pass the number of its class for each row, or targets (N, m) as floats."
        raise ValueError(
            explain(where, "labels int (N,) or float (N, m)", f"{given.dtype} {tuple(given.shape)}", fix)
        )
    if rows is not None and len(given) != rows:
        fix = "Pass one for each row, in the same order."
        raise ValueError(explain(where, f"{rows} labels", len(given), fix))
    if given.is_floating_point() and not given.isfinite().all():
        raise ValueError(explain(where, "finite targets", "NaN or infinity", "Leave these rows out."))
    return given
