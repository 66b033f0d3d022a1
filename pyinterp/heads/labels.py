"""Features and their labels for a head of classes, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads.given import labels_of

if TYPE_CHECKING:
    from pyinterp.heads.head import SparseHead


def labels_for(
    where: str, head: SparseHead, features: Tensor | Features, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Features (N, d) and their labels (N,) as int64 on the CPU, checked; ``where`` names who asks.

    Raises:
        TypeError: No features, or no tensor of whole numbers.
        ValueError: A head of numbers; no labels or another count than of features; no samples; labels that are none of
            its classes.
    """
    require_classes(where, head)
    values = head.require_features(where, features)
    labels = labels_of(where, features, labels)
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        got = str(labels.dtype) if isinstance(labels, Tensor) else type(labels).__name__
        fix = "Pass class numbers, for example torch.as_tensor(labels).long()."
        raise TypeError(explain(where, "a tensor of class numbers", got, fix))
    if not len(values) or labels.shape != values.shape[:1]:
        got = f"{tuple(labels.shape)} for features {tuple(values.shape)}"
        raise ValueError(explain(where, "one label (N,) per sample", got, "Pass both of the same samples."))
    labels = labels.long().cpu()
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= head.classes:
        fix = "Number the classes as for fit_sparse_path."
        raise ValueError(explain(where, f"labels 0 to {head.classes - 1}", f"{low} to {high}", fix))
    return values, labels


def require_classes(where: str, head: SparseHead) -> None:
    """Raise ValueError for a head of numbers."""
    if head.family == "gaussian":
        fix = "Fit a path to classes."
        raise ValueError(explain(where, "a head of classes", "one of numbers (gaussian)", fix))
