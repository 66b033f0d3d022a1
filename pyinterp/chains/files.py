"""A chain on disk."""

from __future__ import annotations

from dataclasses import asdict, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyinterp.models.sites import Site
from pyinterp.storage import load_result, save_result

if TYPE_CHECKING:
    from pyinterp.chains.chain import Chain


def save_chain(chain: Chain, path: str | PathLike[str]) -> None:
    """See `Chain.save`."""
    tensors = {f"kept/{name}": mask for name, mask in chain.kept.items()}
    tensors |= {f"scores/{name}": row for name, row in chain.scores.items()}
    plain = {f.name: getattr(chain, f.name) for f in fields(chain) if f.name not in ("kept", "scores")}
    plain["sites"] = [asdict(site) for site in chain.sites]
    plain["predictions"] = [asdict(prediction) for prediction in chain.predictions]
    save_result("Chain", path, tensors, plain)


def load_chain(path: str | PathLike[str]) -> Chain:
    """See `Chain.load`."""
    return load_result("Chain", "a chain", path, _build)


def _build(plain: dict[str, Any], tensors: dict[str, Tensor]) -> Chain:
    from pyinterp.chains.chain import Chain, Prediction

    plain["sites"] = tuple(Site(**site) for site in plain["sites"])
    plain["predictions"] = tuple(Prediction(**prediction) for prediction in plain["predictions"])
    plain["input_shape"] = tuple(plain["input_shape"])
    plain["architecture"] = {name: tuple(shape) for name, shape in plain["architecture"].items()}
    units = [site for site in plain["sites"] if site.kind != "layer"]
    parts: dict[str, dict[str, Tensor]] = {
        part: {site.name: tensors[f"{part}/{site.name}"] for site in units} for part in ("kept", "scores")
    }
    for site in units:
        if {parts[part][site.name].shape for part in parts} != {torch.Size([site.units])}:
            raise ValueError(f"{site.name!r} has not {site.units} units in both files")
    return Chain(**plain, kept=parts["kept"], scores=parts["scores"])
