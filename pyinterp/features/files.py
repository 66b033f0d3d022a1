"""Features on disk: ``PATH.npy`` holds the rows, ``PATH.json`` all else, also how many of the rows count."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features.statistics import Statistics
from pyinterp.storage import keep_other_kinds, replace_files

KIND = "Features"
FORMAT = "pyinterp.features.1"
ANOTHER = "Choose another path, or delete the file and its .json to start anew."
_CHUNK = 1 << 24  # bytes that are written at a time


@dataclass(frozen=True, eq=False)
class Head:
    """What stands beside the rows.

    Attributes:
        classifier: Path of the layer that reads them.
        model_digest: SHA-256 of the model.
        data_digest: Tells what they are features of.
        statistics: Of the rows, and how many there are.
        labels: (N,) int64, (N, m) float or None.
        names: Of the rows; empty where they are numbered.
        class_names: Of the labels; empty if unknown.
        finished: There will be no more rows.
    """

    classifier: str
    model_digest: str
    data_digest: str
    statistics: Statistics
    labels: Tensor | None
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    finished: bool


def files_of(where: str, path: str | PathLike[str]) -> tuple[Path, Path]:
    """``PATH.npy`` and ``PATH.json``, of a path with or without ``.npy``."""
    whole = os.fspath(path)
    base = whole.removesuffix(".npy")
    if not os.path.basename(base):
        fix = "Add a name: folder/features.npy."
        raise ValueError(explain(where, "a path that ends in the name of a file", repr(whole), fix))
    return Path(f"{base}.npy"), Path(f"{base}.json")


def write_header(file: Any, rows: int, features: int) -> int:
    """Write the header of a ``.npy`` at the start of ``file``; gives its length, which is the same for any rows."""
    file.seek(0)
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, features)}
    np.lib.format.write_array_header_1_0(file, shape)
    return int(file.tell())


def write_rows(file: Any, values: Tensor) -> None:
    """Write float32 rows where ``file`` stands."""
    step = max(1, _CHUNK // (4 * max(1, values.shape[1])))
    for start in range(0, len(values), step):
        left = memoryview(values[start : start + step].contiguous().numpy().astype("<f4").tobytes())
        while left:
            left = left[file.write(left) :]


def write_head(where: str, path: Path, head: Head, fix: str) -> None:
    """Write the ``.json``, in one go or not at all; raises OSError, and ValueError where another result stands."""
    keep_other_kinds(where, path, KIND)
    statistics, labels = head.statistics, head.labels
    moments = {"mean": statistics.mean, "squares": statistics.squares, "max": statistics.max}
    plain = {
        "kind": KIND,
        "format": FORMAT,
        "rows": statistics.rows,
        "features": statistics.mean.numel(),
        "dtype": "float32",
        "finished": head.finished,
        "classifier": head.classifier,
        "model_digest": head.model_digest,
        "data_digest": head.data_digest,
        "statistics": {name: value.tolist() for name, value in moments.items()} if statistics.rows else {},
        "class_names": head.class_names,
        "labels_dtype": None if labels is None else str(labels.dtype).removeprefix("torch."),
        "labels": None if labels is None else labels.tolist(),
        "names": head.names,
    }
    replace_files(where, {path: json.dumps(plain).encode()}, fix)


def read_head(where: str, npy: Path, path: Path) -> Head:
    """Read the ``.json`` and look whether the ``.npy`` has the rows that it tells of.

    Raises:
        ValueError: A file is missing, damaged, cut off or something else.
    """
    keep_other_kinds(where, path, KIND)
    wanted = f"the two files of features, {npy.name} and {path.name}, in {npy.parent}"
    missing = [one.name for one in (npy, path) if not one.is_file()]
    if missing:
        raise ValueError(explain(where, wanted, f"no {' and no '.join(missing)}", ANOTHER))
    try:
        plain = _parsed(path)
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise ValueError(f"a {path.name} that this version has not written")
        head, features = _head(plain), int(plain["features"])
        start, shape = _header(npy)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        got = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(explain(where, wanted, got, ANOTHER)) from error
    rows, there = head.statistics.rows, npy.stat().st_size - start
    if shape[1] != features or shape[0] < rows:
        got = f"a {npy.name} of shape {shape} beside a {path.name} that tells of {(rows, features)}"
        raise ValueError(explain(where, wanted, got, ANOTHER))
    if there < 4 * rows * features:
        got = f"a {npy.name} that is cut off: {there // (4 * features)} of {rows} rows"
        raise ValueError(explain(where, wanted, got, "Copy it again, or delete both files to start anew."))
    return head


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"a {path.name} that is damaged ({error})") from error


def _head(plain: dict[str, Any]) -> Head:
    features = int(plain["features"])
    statistics = Statistics.none(features)
    if plain["rows"]:
        moments = {
            name: torch.tensor(plain["statistics"][name], dtype=torch.float64)
            for name in ("mean", "squares", "max")
        }
        if any(value.shape != (features,) for value in moments.values()):
            raise ValueError("statistics of another width")
        statistics = Statistics(int(plain["rows"]), **moments)
    labels = plain["labels"]
    if labels is not None:
        labels = torch.tensor(labels, dtype=getattr(torch, plain["labels_dtype"]))
        if len(labels) != statistics.rows:
            raise ValueError(f"{len(labels)} labels for {statistics.rows} rows")
    return Head(
        str(plain["classifier"]),
        str(plain["model_digest"]),
        str(plain["data_digest"]),
        statistics,
        labels,
        tuple(map(str, plain["names"])),
        tuple(map(str, plain["class_names"])),
        bool(plain["finished"]),
    )


def _header(npy: Path) -> tuple[int, tuple[int, int]]:
    """Length of the header of a ``.npy``, and its shape."""
    with open(npy, "rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"a {npy.name} of another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if fortran or dtype != np.dtype("<f4") or len(shape) != 2:
            raise ValueError(f"a {npy.name} with {dtype} values of shape {shape}")
        return file.tell(), shape


def map_rows(npy: Path, rows: int) -> Tensor:
    """The rows of a ``.npy`` as a tensor that reads them from the file when they are used.

    What is written into the tensor stays in memory: the file does not change.
    """
    return torch.from_numpy(np.load(npy, mmap_mode="c"))[:rows]


def batches_of(values: Tensor, size: int = 4096) -> Iterator[Tensor]:
    """Its rows in pieces."""
    return (values[i : i + size] for i in range(0, len(values), size))
