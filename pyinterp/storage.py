"""Results on disk: safetensors for the tensors, JSON for the rest; files are replaced in one go or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import threading
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
        ValueError: The path names no file, something that is none, or a result of another kind.
        OSError: It could not be written; older files are whole then.
    """
    if not os.path.basename(path):
        fix = f"Add a name: folder/{kind.lower()}."
        raise ValueError(
            explain(f"{kind}.save", "a path that ends in the name of files", repr(os.fspath(path)), fix)
        )
    keep_other_kinds(f"{kind}.save", _file(path, ".json"), kind)
    packed = save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
    head = {"kind": kind, "format": FORMAT, "tensors_sha256": hashlib.sha256(packed).hexdigest()}
    text = json.dumps({**head, **plain}, indent=1, default=_plain)
    fix = "Free some space, make the folder or choose another folder, and save again."
    files = {_file(path, ".safetensors"): packed, _file(path, ".json"): text.encode()}
    replace_files(f"{kind}.save", files, fix)


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
    other = other_kind(_file(path, ".json"), kind)
    if other:
        fix = f"Load it with {other}.load, or pass another path."
        raise ValueError(explain(f"{kind}.load", f"{noun} at {path}", f"{other}", fix))
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
        plain.pop("kind", None)
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


def other_kind(path: Path, kind: str) -> str:
    """The kind of the result whose ``.json`` is at ``path``, if it is known and not ``kind``; else nothing."""
    try:
        found = json.loads(path.read_text("utf-8"))["kind"]
    except (KeyError, OSError, TypeError, ValueError):
        return ""
    return "" if found == kind else str(found)


def keep_other_kinds(where: str, path: Path, kind: str) -> None:
    """Raise ValueError if the ``.json`` at ``path`` is that of another kind of result, which would be lost."""
    other = other_kind(path, kind)
    if other:
        wanted = f"a name for {kind} that nothing else has"
        raise ValueError(explain(where, wanted, f"{path}, which belongs to {other}", "Choose another name."))


def _file(path: str | PathLike[str], suffix: str) -> Path:
    return Path(f"{os.fspath(path)}{suffix}")


def replace_files(where: str, files: Mapping[Path, bytes], fix: str) -> None:
    """Write all beside their targets and move them into place last: a failure leaves older files as they are.

    Any number of processes and threads may write the same files.

    Args:
        where: Who writes, for the messages.
        files: What to write, by its path.
        fix: What to do if it can't be written.

    Raises:
        ValueError: A path is there and is no file.
        OSError: It can't be written.
    """
    for target in files:
        if target.exists() and not target.is_file():
            another = "Choose the name of a new or older file."
            raise ValueError(explain(where, "a path to a file", f"{target}, which is none", another))
    writer = f"{os.getpid()}.{threading.get_ident()}"
    drafts = {path.resolve(): path.resolve().with_name(f".{path.name}.{writer}") for path in files}
    try:
        for draft, content in zip(drafts.values(), files.values(), strict=True):
            draft.write_bytes(content)
        for target, draft in drafts.items():
            os.replace(draft, target)
    except OSError as error:
        names = " and ".join(map(str, files))
        raise OSError(explain(where, f"to write {names}", error.strerror or error, fix)) from error
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """JSON's idea of a value that it does not know."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
