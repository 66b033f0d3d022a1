"""Lend a model another forward for a while; it comes back exactly as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.models.graph import with_logits

_ABSENT = object()


@contextmanager
def replaced_forward(model: nn.Module, fn: Callable[[Tensor], Tensor]) -> Iterator[nn.Module]:
    """While inside, ``model(images)`` answers with ``fn(images)``, in the structure that the model itself returns.

    A tensor stays a tensor. An object or mapping with ``logits`` keeps its type and holds these logits alone: its
    other entries, which would belong to the full network, are None. Hooks of the model itself still run. Afterwards,
    also after an exception, ``model.__dict__``, hooks and weights are what they were.

    Args:
        model: Maps images (N, ...) to logits (N, classes), or to an object or mapping with ``logits``.
        fn: Maps the same images to logits (N, classes).

    Yields:
        ``model``.
    """
    own = model.__dict__.get("forward", _ABSENT)
    original = model.forward
    shape: list[Any] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if len(given) != 1 or not isinstance(given[0], Tensor):
            fix = "Other arguments have no meaning while the forward is replaced."
            got = ", ".join(type(value).__name__ for value in given) or "nothing"
            raise TypeError(explain("model", "one batch of images", got, fix))
        logits = fn(given[0])
        if not shape:
            with torch.no_grad():
                shape.append(original(given[0][:1]))
        return with_logits(shape[0], logits)

    forward.replaces = original  # type: ignore[attr-defined]
    model.__dict__["forward"] = forward
    try:
        yield model
    finally:
        if own is _ABSENT:
            model.__dict__.pop("forward", None)
        else:
            model.__dict__["forward"] = own
