"""A chain on disk: safetensors for the tensors, JSON for the rest, both replaced in one go or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from pyinterp.errors import explain
from pyinterp.models.sites import Site

if TYPE_CHECKING:
    from pyinterp.chains.chain import Chain

FORMAT = 1


def save_chain(chain: Chain, path: str | PathLike[str]) -> None:
    """See `Chain.save`."""
    if not os.path.basename(path):
        fix = "Add a name: folder/chain."
        raise ValueError(
            explain("Chain.save", "a path that ends in the chain's name", repr(os.fspath(path)), fix)
        )
    tensors = {f"kept/{name}": mask.cpu().contiguous() for name, mask in chain.kept.items()}
    tensors |= {f"scores/{name}": row.cpu().contiguous() for name, row in chain.scores.items()}
    plain = {f.name: getattr(chain, f.name) for f in fields(chain) if f.name not in ("kept", "scores")}
    plain["sites"] = [asdict(site) for site in chain.sites]
    plain["predictions"] = [asdict(prediction) for prediction in chain.predictions]
    packed = save(tensors)
    head = {"format": FORMAT, "tensors_sha256": hashlib.sha256(packed).hexdigest()}
    text = json.dumps(head | plain, indent=1, default=_plain)
    _replace(
        {
            _file(path, ".safetensors"): lambda file: file.write_bytes(packed),
            _file(path, ".json"): lambda file: file.write_text(text, "utf-8"),
        }
    )


def load_chain(path: str | PathLike[str]) -> Chain:
    """See `Chain.load`."""
    from pyinterp.chains.chain import Chain, Prediction

    for suffix in (".json", ".safetensors"):
        if not _file(path, suffix).is_file():
            fix = "Pass the path that was given to save, without a suffix."
            raise ValueError(
                explain("Chain.load", "the two files of a chain", f"no {_file(path, suffix)}", fix)
            )
    try:
        plain = json.loads(_file(path, ".json").read_text("utf-8"))
        if not isinstance(plain, dict):
            raise ValueError("no JSON object")
        packed = _file(path, ".safetensors").read_bytes()
        if plain.pop("format") != FORMAT:
            raise ValueError("written by another version of pyinterp")
        if plain.pop("tensors_sha256") != hashlib.sha256(packed).hexdigest():
            raise ValueError("the .safetensors file is damaged, or belongs to another chain")
        tensors = load(packed)
        plain["sites"] = tuple(Site(**site) for site in plain["sites"])
        plain["predictions"] = tuple(Prediction(**prediction) for prediction in plain["predictions"])
        plain["input_shape"] = tuple(plain["input_shape"])
        plain["architecture"] = {name: tuple(shape) for name, shape in plain["architecture"].items()}
        units = [site for site in plain["sites"] if site.kind != "layer"]
        parts: dict[str, dict[str, torch.Tensor]] = {
            part: {site.name: tensors[f"{part}/{site.name}"] for site in units} for part in ("kept", "scores")
        }
        for site in units:
            if {parts[part][site.name].shape for part in parts} != {torch.Size([site.units])}:
                raise ValueError(f"{site.name!r} has not {site.units} units in both files")
        return Chain(**plain, kept=parts["kept"], scores=parts["scores"])
    except (AttributeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        fix = "Save the chain again."
        got = f"{type(error).__name__}: {error}"
        raise ValueError(explain("Chain.load", f"a chain at {path}", got, fix)) from error


def _file(path: str | PathLike[str], suffix: str) -> Path:
    return Path(f"{os.fspath(path)}{suffix}")


def _replace(files: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write all beside their targets and move them into place last: a failure leaves older files as they are."""
    for target in files:
        if target.exists() and not target.is_file():
            fix = "Choose the name of new or older files."
            raise ValueError(explain("save", "a path to a file", f"{target}, which is none", fix))
    files = {target.resolve(): write for target, write in files.items()}
    drafts = {target: target.with_name(f".{target.name}.{os.getpid()}") for target in files}
    try:
        for target, write in files.items():
            write(drafts[target])
        for target, draft in drafts.items():
            os.replace(draft, target)
    except OSError as error:
        names = " and ".join(map(str, files))
        raise OSError(
            explain(
                "save",
                f"to write {names}",
                error,
                "Free some space, make the folder or choose another folder, and save again.",
            )
        ) from error
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """JSON's idea of a value that it does not know."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
