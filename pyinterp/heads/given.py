"""Features and labels as a user hands them over: tensors, or `Features` that carry both."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features import Features


def values_of(where: str, features: Any) -> Tensor:
    """The tensor of features; ``where`` names who asks.

    Raises:
        TypeError: Neither a tensor nor `Features`.
    """
    if isinstance(features, Features):
        return features.values
    if isinstance(features, Tensor):
        return features
    fix = "Pass what extract_features gave, or torch.from_numpy(array) of an array."
    raise TypeError(explain(where, "a tensor of features, or Features", type(features).__name__, fix))


def labels_of(where: str, features: Any, labels: Any) -> Any:
    """The labels as they were given; where they are None those of the `Features`.

    Raises:
        ValueError: There are none.
    """
    if labels is None and isinstance(features, Features):
        labels = features.labels
    if labels is None:
        fix = "Pass one per sample, or Features that carry them."
        raise ValueError(explain(where, "labels", "none", fix))
    return labels
