"""LayerKnowledge and Probes on disk."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.heads import SparseHead
from pyinterp.knowledge.layers import Layer
from pyinterp.models.identity import model_digest
from pyinterp.storage import load_result, save_result

if TYPE_CHECKING:
    from pyinterp.knowledge.layer_knowledge import LayerKnowledge
    from pyinterp.knowledge.probes import Probes

TENSORS = ("effects", "values", "sigma", "gap", "accuracy", "labels")
OPTIONAL = ("spread",)
OF_HEADS = ("weights", "bias", "mean", "std")
OF_PROBES = ("accuracy", "held", "labels", "marks")
NAMES = ("layers", "image_names", "player_names", "class_names")


def make_folder(folder: Path) -> None:
    """Raises ValueError where something else has that name."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            explain("folder", "a folder to keep files in", f"the file {folder}", "Choose another.")
        )
    folder.mkdir(parents=True, exist_ok=True)


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


def save_probes(found: Probes, path: str | PathLike[str]) -> None:
    """See `Probes.save`."""
    tensors = {name: getattr(found, name) for name in OF_PROBES}
    heads = []
    for number, head in enumerate(found.heads):
        tensors |= {f"{number}.{name}": getattr(head, name) for name in OF_HEADS}
        heads.append({f.name: getattr(head, f.name) for f in fields(head) if f.name not in OF_HEADS})
    plain = {
        "model_digest": model_digest(found.model),
        "layers": [asdict(layer) for layer in found.layers],
        "heads": heads,
        **{
            name: getattr(found, name)
            for name in ("width", "rows", "chance", "data_digest", "fitted", "class_names", "sample_names")
        },
    }
    save_result("Probes", path, tensors, plain)


def load_probes(path: str | PathLike[str], model: nn.Module) -> Probes:
    """See `Probes.load`."""
    found, digest = load_result("Probes", "probes", path, partial(_build_probes, model=model))
    if digest != model_digest(model):
        fix = "Load the network and weights that they were fitted to."
        raise ValueError(explain("Probes.load", "the network of these probes", "another", fix))
    return found


def _build_probes(plain: dict[str, Any], tensors: dict[str, Tensor], model: nn.Module) -> tuple[Probes, str]:
    from pyinterp.knowledge.probes import Probes

    digest, layers, heads = (plain.pop(name) for name in ("model_digest", "layers", "heads"))
    made = []
    for number, head in enumerate(heads):
        own: dict[str, Any] = {name: tensors.pop(f"{number}.{name}") for name in OF_HEADS}
        made.append(SparseHead(**{**head, "class_names": tuple(head["class_names"])}, **own))
    plain |= {name: tuple(plain[name]) for name in ("class_names", "sample_names")}
    plain["rows"] = None if plain["rows"] is None else tuple(plain["rows"])
    found = tuple(Layer(**{**layer, "shape": tuple(layer["shape"])}) for layer in layers)
    held: dict[str, Any] = dict(tensors)
    return Probes(model=model, layers=found, heads=tuple(made), **plain, **held), str(digest)
