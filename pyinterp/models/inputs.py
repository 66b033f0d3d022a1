"""What a model takes: one tensor, or several by keyword as text models do; on its device and in its precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain

Inputs = Tensor | Mapping[str, Any]
"""(N, ...), or keywords whose tensors are (N, ...) each."""


def place_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and floating dtype of a model: those of its first floating parameter or buffer."""
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            return value.device, value.dtype
    return torch.device("cpu"), torch.float32


def call(model: nn.Module, inputs: Inputs) -> Any:
    """What ``model`` answers: tensors are brought to its device, floating ones to its dtype."""
    device, dtype = place_of(model)

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.detach().to(device, dtype if value.is_floating_point() else None)

    if isinstance(inputs, Tensor):
        return model(placed(inputs))
    return model(**{name: placed(value) for name, value in inputs.items()})


def rows_of(where: str, inputs: Any) -> int:
    """N.

    Raises:
        TypeError: No tensor, and no mapping that holds some.
        ValueError: No row, or tensors that disagree about N.
    """
    tensors = [inputs] if isinstance(inputs, Tensor) else []
    if isinstance(inputs, Mapping):
        tensors = [value for value in inputs.values() if isinstance(value, Tensor)]
    if not tensors:
        fix = "Pass what the model takes: a tensor, or a dict of the tensors that it takes by keyword."
        raise TypeError(explain(where, "inputs (N, ...)", type(inputs).__name__, fix))
    counts = {value.shape[0] if value.dim() else 0 for value in tensors}
    if len(counts) > 1 or 0 in counts:
        got = ", ".join(str(tuple(value.shape)) for value in tensors)
        fix = "Put the samples on the first axis of every tensor."
        raise ValueError(explain(where, "inputs (N, ...) with at least one sample", got, fix))
    return counts.pop()


def take_rows(inputs: Inputs, rows: slice) -> Inputs:
    """The samples ``rows`` of ``inputs``."""
    if isinstance(inputs, Tensor):
        return inputs[rows]
    return {name: value[rows] if isinstance(value, Tensor) else value for name, value in inputs.items()}
