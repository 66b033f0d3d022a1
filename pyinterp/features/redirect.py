"""Gradients that a ReLU would swallow whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CUTTING = ("ReluBackward", "HardtanhBackward", "ThresholdBackward", "ClampBackward", "ClampMinBackward")


def redirect_relus(output: Tensor) -> None:
    """Let gradients pass the ReLUs (ReLU6, clamps) behind which nothing at all would be left of them.

    Where all that a ReLU hands back for a sample is zero, it hands back the positive part of what it got: the way up.
    A feature that is zero on the first picture could not be climbed otherwise. Only the one backward pass through
    ``output`` is changed, and the network is not touched.

    Args:
        output: (N, ...), what will be differentiated, to be climbed.

    Source: the ReLU gradients of Lucid, which does this in its first 16 steps (Olah et al., Feature Visualization,
        2017).
    """
    seen = set()
    todo = [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        if node.name().startswith(_CUTTING):
            node.register_hook(_redirected(len(output)))


def _redirected(samples: int) -> Any:
    def hook(kept: tuple[Tensor | None, ...], given: tuple[Tensor | None, ...]) -> Any:
        if kept[0] is None or given[0] is None or len(kept[0]) != samples:
            return None
        alive = kept[0].reshape(samples, -1).any(1)
        if alive.all():  # as nearly always: nothing is copied
            return None
        alive = alive.reshape(-1, *[1] * (kept[0].dim() - 1))
        return (torch.where(alive, kept[0], given[0].clamp_min(0)), *kept[1:])

    return hook
