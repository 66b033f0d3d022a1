"""LayerKnowledge on disk."""

from __future__ import annotations

from dataclasses import fields
from os import PathLike
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyinterp.storage import load_result, save_result

if TYPE_CHECKING:
    from pyinterp.knowledge.layer_knowledge import LayerKnowledge

TENSORS = ("effects", "values", "sigma", "gap", "accuracy", "labels")
OPTIONAL = ("spread",)
NAMES = ("layers", "image_names", "player_names", "class_names")


def save_knowledge(found: LayerKnowledge, path: str | PathLike[str]) -> None:
    """See `LayerKnowledge.save`."""
    held = {name: getattr(found, name) for name in TENSORS + OPTIONAL}
    plain = {f.name: getattr(found, f.name) for f in fields(found) if f.name not in held}
    tensors = {name: tensor for name, tensor in held.items() if tensor is not None}
    save_result("LayerKnowledge", path, tensors, plain)


def load_knowledge(path: str | PathLike[str]) -> LayerKnowledge:
    """See `LayerKnowledge.load`."""
    return load_result("LayerKnowledge", "what layers know", path, _build)


def _build(plain: dict[str, Any], tensors: dict[str, Tensor]) -> LayerKnowledge:
    from pyinterp.knowledge.layer_knowledge import LayerKnowledge

    plain |= {name: tuple(plain[name]) for name in NAMES}
    count, layers, size = len(plain["image_names"]), len(plain["layers"]), 1 << len(plain["player_names"])
    shapes = {"effects": (count, layers, 2, size), "values": (count, layers, size), "sigma": (count, layers)}
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name} of shape {tuple(tensors[name].shape)}, not {shape}")
    if unknown := set(tensors) - {*TENSORS, *OPTIONAL}:
        raise ValueError(f"unknown tensors {sorted(unknown)}")
    held: dict[str, Any] = dict(tensors)
    return LayerKnowledge(**plain, **held)
