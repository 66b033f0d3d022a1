"""Asking a network for its deep features, and the arguments that all who ask have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.models.classifier import with_classifier
from pyinterp.models.graph import logits_of
from pyinterp.models.inputs import place_of

Features = Sequence[int] | Tensor
Asker = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) float32 -> features (N, d) float32."""


@contextmanager
def asking(model: nn.Module, example: Tensor) -> Iterator[tuple[Asker, int]]:
    """Without autocast, what asks the network for what its last linear layer reads, and how many features these are.

    Gradients flow through the answers where they are enabled.

    Args:
        model: The network; see `find_classifier`.
        example: (N, C, H, W) to find the layer with.

    Raises:
        ValueError: As `with_classifier`.
    """
    device, dtype = place_of(model)
    with torch.autocast(device.type, enabled=False):
        extractor = with_classifier(model, nn.Identity(), example)

        def ask(images: Tensor) -> Tensor:
            return logits_of(extractor(images.to(device, dtype))).float()

        with torch.no_grad():
            count = ask(example).shape[1]
        yield ask, count


def require_count(where: str, name: str, value: object) -> None:
    """Raise TypeError or ValueError unless ``value`` is a whole number from 1 on."""
    fix = f"Pass {name}=1 or more."
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(explain(where, f"{name} as a whole number", repr(value), fix))
    if value < 1:
        raise ValueError(explain(where, f"{name} of at least 1", value, fix))


def feature_indices(where: str, features: Features) -> tuple[int, ...]:
    """The features that a user asks for, as plain numbers.

    Raises:
        ValueError: There are none.
        TypeError: They are no whole numbers.
    """
    listed: Any = features.tolist() if isinstance(features, Tensor) else features
    fix = "Pass the indices of some features, such as [3, 17]."
    if not isinstance(listed, (list, tuple, range)) or not all(type(i) is int for i in listed):
        raise TypeError(explain(where, "features as a list of whole numbers", repr(listed), fix))
    if not listed:
        raise ValueError(explain(where, "at least one feature", "none", fix))
    return tuple(listed)


def require_known(where: str, features: tuple[int, ...], count: int) -> None:
    """Raise ValueError unless the network has all these features."""
    unknown = [i for i in features if not 0 <= i < count]
    if unknown:
        fix = f"The model answers with {count} features: ask for some of 0 to {count - 1}."
        raise ValueError(explain(where, "features that the model has", unknown, fix))
