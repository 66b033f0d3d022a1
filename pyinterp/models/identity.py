"""Digests that tell one model, one input or one task from another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def tensor_digest(value: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and values."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def model_digest(model: nn.Module) -> str:
    """SHA-256 of a model's structure as it prints, and of all its parameters and buffers by name."""
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(model)).encode())
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode())
        _feed(digest, value)
    return digest.hexdigest()


def digest_of(identity: Mapping[str, str]) -> str:
    """SHA-256 of all parts of an identity."""
    return hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()


def _feed(digest: hashlib._Hash, value: Tensor) -> None:
    digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
    if value.numel():
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
