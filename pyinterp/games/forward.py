"""From subset codes to logits: the network on masked inputs, in inference mode and in its own precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.models.graph import logits_of
from pyinterp.ops.mask_inputs import mask_inputs

Forward = Callable[[Tensor], Tensor]
"""Codes (B,) int64 -> logits (B, classes)."""


@dataclass(frozen=True)
class MaskedForward:
    """The network on the masked inputs of a batch of codes.

    Attributes:
        model: In eval mode.
        x: (C..., P...), the whole input without the axis of the batch, on the model's device.
        baseline: Like ``x``.
        players: (P...) int64, the player of each position.
        name: The keyword that the model takes the input by; None passes it first.
        channels_last: Whether the model gets images in that memory format.
        others: Further inputs by keyword, each without the axis of the batch.
    """

    model: nn.Module
    x: Tensor
    baseline: Tensor
    players: Tensor
    channels_last: bool = False
    name: str | None = None
    others: Mapping[str, Tensor] = field(default_factory=dict)

    def __call__(self, codes: Tensor) -> Tensor:
        codes = codes.to(self.x.device, non_blocking=True)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        masked = mask_inputs(self.x, self.baseline, self.players, codes, memory_format=layout)
        others = {name: value.expand(len(codes), *value.shape) for name, value in self.others.items()}
        if self.name is None:
            return logits_of(self.model(masked, **others))
        return logits_of(self.model(**{self.name: masked}, **others))


def is_channels_last(model: nn.Module) -> bool:
    """Whether the model's convolutions are stored channels-last, so that its input had better be."""
    weights = [value for value in model.parameters() if value.dim() == 4]
    return any(
        value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
        for value in weights
    )


def replica(
    model: nn.Module, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """A copy of a model, on another device or in another precision."""
    return copy.deepcopy(model).to(device=device, dtype=dtype)


@contextmanager
def plain_numerics(device: torch.device) -> Iterator[None]:
    """Inference mode, and none of the caller's autocast; both belong to the thread."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def full_float32(allow_tf32: bool) -> Iterator[None]:
    """float32 products as float32, not as TF32 or bfloat16, in the whole process; settings come back as they were.

    torch has an older and a newer way to set this, and refuses to read the one where the other says something else:
    both are set. Where the caller's own settings can't be read in the older way, that way is left alone.
    """
    if allow_tf32:
        yield
        return
    backends: Any = torch.backends
    kinds = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    kinds += [backends.mkldnn.matmul, backends.mkldnn.conv]
    before = [kind.fp32_precision for kind in kinds]
    older = _older_settings()
    try:
        if older is not None:
            _set_older(False, "highest")
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        if older is not None:
            _set_older(*older)
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def _older_settings() -> tuple[bool, str] | None:
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set_older(convolutions: bool, products: str) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)
