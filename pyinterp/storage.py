"""A result on disk: safetensors for the tensors, JSON for the rest, both replaced in one go or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pyinterp.errors import explain

FORMAT = 1
Result = TypeVar("Result")


def save_result(
    kind: str, path: str | PathLike[str], tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    """Write ``path.safetensors`` and ``path.json``.

    Args:
        kind: The class of the result, for the messages: ``"Chain"``.
        path: Both files' path, without a suffix.
        tensors: On any device.
        plain: What JSON knows, and numbers of torch or NumPy.

    Raises:
        ValueError: The path names no file, or something that is none.
        OSError: It could not be written; older files are whole then.
    """
    if not os.path.basename(path):
        fix = f"Add a name: folder/{kind.lower()}."
        raise ValueError(
            explain(f"{kind}.save", "a path that ends in the name of files", repr(os.fspath(path)), fix)
        )
    packed = save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
    head = {"format": FORMAT, "tensors_sha256": hashlib.sha256(packed).hexdigest()}
    text = json.dumps({**head, **plain}, indent=1, default=_plain)
    _replace(
        {
            _file(path, ".safetensors"): lambda file: file.write_bytes(packed),
            _file(path, ".json"): lambda file: file.write_text(text, "utf-8"),
        }
    )


def load_result(
    kind: str,
    noun: str,
    path: str | PathLike[str],
    build: Callable[[dict[str, Any], dict[str, Tensor]], Result],
) -> Result:
    """Read what `save_result` wrote.

    Args:
        kind: As it was saved.
        noun: The result in words, for the messages: ``"a chain"``.
        path: As it was saved.
        build: Makes the result of the plain values and the tensors; any AttributeError, KeyError, TypeError or
            ValueError of it says that the files don't fit.

    Raises:
        ValueError: The files are not there, damaged, or of something else.
    """
    for suffix in (".json", ".safetensors"):
        if not _file(path, suffix).is_file():
            fix = "Pass the path that was given to save, without a suffix."
            raise ValueError(
                explain(f"{kind}.load", f"the two files of {noun}", f"no {_file(path, suffix)}", fix)
            )
    try:
        plain = json.loads(_file(path, ".json").read_text("utf-8"))
        if not isinstance(plain, dict):
            raise ValueError("no JSON object")
        packed = _file(path, ".safetensors").read_bytes()
        if plain.pop("format") != FORMAT:
            raise ValueError("written by another version of pyinterp")
        if plain.pop("tensors_sha256") != hashlib.sha256(packed).hexdigest():
            raise ValueError("the .safetensors file is damaged, or belongs to another .json")
        return build(plain, load(packed))
    except (AttributeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ValueError(
            explain(f"{kind}.load", f"{noun} at {path}", got, "Save the result again.")
        ) from error


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
