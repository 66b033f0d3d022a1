"""Interactions on disk."""

from __future__ import annotations

from dataclasses import fields
from os import PathLike
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyinterp.storage import load_result, save_result

if TYPE_CHECKING:
    from pyinterp.interactions.interactions import Interactions

TENSORS = ("values", "and_", "or_")
OPTIONAL = ("player_map", "pixels", "draws")


def save_interactions(found: Interactions, path: str | PathLike[str]) -> None:
    """See `Interactions.save`."""
    held = {name: getattr(found, name) for name in TENSORS + OPTIONAL}
    plain = {f.name: getattr(found, f.name) for f in fields(found) if f.name not in held}
    tensors = {name: tensor for name, tensor in held.items() if tensor is not None}
    save_result("Interactions", path, tensors, plain)


def load_interactions(path: str | PathLike[str]) -> Interactions:
    """See `Interactions.load`."""
    return load_result("Interactions", "interactions", path, _build)


def _build(plain: dict[str, Any], tensors: dict[str, Tensor]) -> Interactions:
    from pyinterp.interactions.interactions import Interactions

    plain["player_names"] = tuple(plain["player_names"])
    size = 1 << len(plain["player_names"])
    for name in TENSORS:
        if tuple(tensors[name].shape) != (size,):
            raise ValueError(f"{name} of shape {tuple(tensors[name].shape)}, with {size} subsets")
    if unknown := set(tensors) - {*TENSORS, *OPTIONAL}:
        raise ValueError(f"unknown tensors {sorted(unknown)}")
    held: dict[str, Any] = dict(tensors)
    return Interactions(**plain, **held)
