"""Where features come from: tensors, pictures, a folder per class, a data set or a loader, read batch by batch."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, default_collate

from pyinterp.errors import explain
from pyinterp.models.identity import digest_of, tensor_digest
from pyinterp.models.images import (
    ImageSet,
    Preprocessor,
    checked_batch,
    entry_name,
    image_entries,
    read_entries,
)
from pyinterp.models.inputs import Inputs, rows_of, take_rows
from pyinterp.models.pictures import MAX_PIXELS, is_picture_name, read_picture
from pyinterp.progress import Progress, Ticker

WHERE = "extract_features"
NAMED = 10  # broken pictures
_LABELS = ("labels", "label")


class Batch(NamedTuple):
    """Some rows: what the model takes, and their labels as the data gave them, if it did."""

    inputs: Inputs
    labels: Any = None


@dataclass(frozen=True)
class Source:
    """Data as a stream of batches.

    Attributes:
        rows: How many; None if only reading tells.
        digest: Tells these data from others.
        batches: Row to begin at -> the batches from there on. To be called once.
        labels: (N,) int64, those that folders tell; None otherwise.
        names: Of the rows, where they are files or have been given; None otherwise.
        class_names: Names of the folders.
        noun: What a row without a name is called.
        ordered: Whether every pass gives the same order.
        pictures: The rows, where they are pictures: paths, PIL images or tensors.
    """

    rows: int | None
    digest: str
    batches: Callable[[int], Iterator[Batch]]
    labels: Tensor | None = None
    names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] = ()
    noun: str = "row"
    ordered: bool = True
    pictures: Sequence[Any] = ()

    def name(self, row: int) -> str:
        """What a row is called."""
        return f"{self.noun} {row}" if self.names is None else self.names[row]


def open_source(data: Any, preprocess: Preprocessor | None, batch_size: int) -> Source:
    """See `extract_features`; of a data set four rows are read, of a loader the first, to tell the data from others.

    Raises:
        ValueError: There is no row, a class folder is empty, or the pictures are no images of one size.
        TypeError: ``data`` is nothing of what is known.
    """
    if isinstance(data, ImageSet):
        return _tensors(data.tensor, batch_size, data.names)
    if isinstance(data, (Tensor, Mapping)):
        return _tensors(data, batch_size)
    if isinstance(data, (str, PathLike)) and Path(data).is_dir() and _is_classes(Path(data)):
        return _classes(Path(data), preprocess, batch_size)
    if isinstance(data, (str, PathLike, Image.Image)):
        return _pictures(image_entries(data), preprocess, batch_size)
    if isinstance(data, (list, tuple)) and _are_pictures(data):
        return _pictures(image_entries(data), preprocess, batch_size)
    if isinstance(data, DataLoader):
        return _stream(data, _loader_rows(data), not isinstance(data.sampler, RandomSampler))
    if isinstance(data, IterableDataset):
        return _stream(DataLoader(data, batch_size), None)
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if indexed and not isinstance(data, (list, tuple, np.ndarray, bytes)):
        return _dataset(data, preprocess, batch_size)
    if isinstance(data, Iterable) and not isinstance(data, (np.ndarray, bytes)):
        return _stream(data, None)
    fix = "Pass a tensor, pictures or their paths, a folder, a Dataset, a DataLoader, or torch.from_numpy of an array."
    got = f"{type(data).__module__}.{type(data).__name__}"
    raise TypeError(explain(WHERE, "data that a model takes", got, fix))


def require_readable(source: Source, progress: Progress = None) -> None:
    """Decode all pictures that are files, before hours of work that a broken one among them would end.

    Args:
        source: From `open_source`.
        progress: None shows a bar on a terminal; True, False, or a callable that gets {"done", "total", "seconds"}.

    Raises:
        ValueError: Some can't be read; it says how many, and names the first.
    """
    files = [(i, one) for i, one in enumerate(source.pictures) if isinstance(one, Path)]
    broken = []
    ticker = Ticker(progress, len(files), 0, "images looked at")
    pool = ThreadPoolExecutor()
    # read_picture changes the filters of warnings, which all threads share: here they are put back.
    with closing(ticker), warnings.catch_warnings():
        try:
            for (i, _), fault in zip(files, pool.map(_fault, [one for _, one in files]), strict=True):
                broken += [f"{source.name(i)}: {fault}"] if fault else []
                ticker(1)
        finally:
            pool.shutdown(cancel_futures=True)
    if broken:
        more = "; ..." if len(broken) > NAMED else ""
        got = f"{len(broken)} of {len(files)} that can't ({'; '.join(broken[:NAMED])}{more})"
        raise ValueError(explain(WHERE, "images that can be read", got, "Repair or remove them."))


def _fault(file: Path) -> str:
    """What is wrong with a picture, if anything is."""
    try:
        read_picture(file, MAX_PIXELS)
    except Exception as error:  # decoders raise errors of any type on damaged files
        return str(error).strip() or type(error).__name__
    return ""


def _are_pictures(data: Sequence[Any]) -> bool:
    first = data[0] if data else ""
    return isinstance(first, (str, PathLike, Image.Image)) or (
        isinstance(first, Tensor) and first.dim() == 3 and first.is_floating_point()
    )


def _tensors(data: Inputs, batch_size: int, names: tuple[str, ...] | None = None) -> Source:
    inputs, labels = _split(data)
    rows = rows_of(WHERE, inputs)
    images = isinstance(inputs, Tensor) and inputs.dim() == 4

    def batches(start: int) -> Iterator[Batch]:
        for i in range(start, rows, batch_size):
            some = take_rows(inputs, slice(i, i + batch_size))
            told = None if labels is None else labels[i : i + batch_size]
            yield Batch(checked_batch(some) if images and isinstance(some, Tensor) else some, told)

    noun = "image" if images else "row"
    return Source(rows, digest_of({"all": _content(inputs)}), batches, names=names, noun=noun)


def _is_classes(folder: Path) -> bool:
    """Whether the pictures lie in sub-folders of ``folder``, and none in itself."""
    holds_classes = bool(_subfolders(folder))
    if holds_classes and any(is_picture_name(one.name) and one.is_file() for one in folder.iterdir()):
        fix = "Move the pictures into the folders of their classes; or pass a list of the pictures' paths."
        raise ValueError(explain(WHERE, f"pictures or folders of classes in {folder}", "both", fix))
    return holds_classes


def _subfolders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def _classes(folder: Path, preprocess: Preprocessor | None, batch_size: int) -> Source:
    files: list[Path] = []
    counts: dict[str, int] = {}
    for one in _subfolders(folder):
        walk = sorted(os.walk(one, followlinks=True))
        found = [
            Path(root, name) for root, _, names in walk for name in sorted(names) if is_picture_name(name)
        ]
        counts[one.name] = len(found)
        files += found
    empty = [name for name, count in counts.items() if not count]
    if empty:
        fix = "Fill or remove them."
        got = f"none in {', '.join(empty[:10])}"
        raise ValueError(explain(WHERE, f"pictures in each folder of {folder}", got, fix))
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(list(counts.values())))
    names = tuple(path.relative_to(folder).as_posix() for path in files)
    return _pictures(files, preprocess, batch_size, names, labels, tuple(counts))


def _pictures(
    entries: list[Any],
    preprocess: Preprocessor | None,
    batch_size: int,
    names: tuple[str, ...] | None = None,
    labels: Tensor | None = None,
    class_names: tuple[str, ...] = (),
) -> Source:
    called = names or tuple(entry_name(entry, i) for i, entry in enumerate(entries))

    def batches(start: int) -> Iterator[Batch]:
        shape: torch.Size | None = None
        for i in range(start, len(entries), batch_size):
            rows = slice(i, i + batch_size)
            images = read_entries(entries[rows], called[rows], preprocess)
            shape = shape or images.shape[1:]
            if images.shape[1:] != shape:
                got = f"{tuple(shape)}, and {tuple(images.shape[1:])} from {called[i]!r} on"
                fix = "Resize them, or pass preprocess=loaded.preprocess of the model, which does."
                raise ValueError(explain(WHERE, "images of one size", got, fix))
            yield Batch(images)

    digest = hashlib.sha256(_without_addresses(preprocess).encode())
    for name, entry in zip(called, entries, strict=True):
        digest.update(f"{name}\0{_told(entry)}\0".encode())
    return Source(
        len(entries), digest.hexdigest(), batches, labels, called, class_names, "image", pictures=entries
    )


def _told(entry: Any) -> str:
    """What tells one picture from another of its name: size and time of a file, else all of it."""
    if isinstance(entry, Tensor):
        return tensor_digest(entry)
    path = Path(getattr(entry, "filename", "") or "") if isinstance(entry, Image.Image) else entry
    try:
        if path.name:
            known = path.stat()
            return f"{known.st_size} {known.st_mtime_ns}"
    except OSError:  # reading it will say so
        pass
    if isinstance(entry, Image.Image):
        return tensor_digest(torch.from_numpy(np.array(entry.convert("RGBA"))))
    return "no file"


def _without_addresses(thing: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _dataset(data: Any, preprocess: Preprocessor | None, batch_size: int) -> Source:
    rows = len(data)
    if not rows:
        raise ValueError(explain(WHERE, "data with at least one row", "an empty data set", "Fill it."))

    def collate(start: int, samples: Sequence[Any]) -> Batch:
        inputs, labels = zip(*map(_split, samples), strict=True)
        if isinstance(inputs[0], (Image.Image, str, PathLike)):
            names = [f"image {i}" for i in range(start, start + len(inputs))]
            entries = [Path(one) if isinstance(one, (str, PathLike)) else one for one in inputs]
            together: Inputs = read_entries(entries, names, preprocess)
        else:
            together = _collated(inputs)
        return Batch(together, None if labels[0] is None else _collated(labels))

    def batches(start: int) -> Iterator[Batch]:
        for i in range(start, rows, batch_size):
            yield collate(i, [data[j] for j in range(i, min(i + batch_size, rows))])

    shown = [_split(data[i])[0] for i in sorted({0, rows // 3, 2 * rows // 3, rows - 1})]
    for i, one in enumerate(shown):
        if isinstance(one, Image.Image):
            shown[i] = torch.from_numpy(np.array(read_picture(one, one.width * one.height)))
    told = {"rows": str(rows), "preprocess": _without_addresses(preprocess)}
    told |= {f"row {i}": _content(one) for i, one in enumerate(shown)}
    images = not isinstance(shown[0], Mapping) and not (isinstance(shown[0], Tensor) and shown[0].dim() != 3)
    return Source(rows, digest_of(told), batches, noun="image" if images else "row")


def _collated(values: Sequence[Any]) -> Any:
    try:
        return default_collate(list(values))
    except (RuntimeError, TypeError) as error:
        fix = "Give the data set a transform that makes tensors of one size, or pass a DataLoader with a collate_fn."
        raise ValueError(
            explain(WHERE, "samples that make a batch", str(error).splitlines()[0], fix)
        ) from error


def _stream(data: Iterable[Any], rows: int | None, ordered: bool = True) -> Source:
    stream = iter(data)
    first = next(stream, None)
    if first is None:
        raise ValueError(
            explain(WHERE, "at least one batch", "none", "Fill it; a generator can be used once.")
        )
    begun = Batch(*_split(first))
    rows_of(WHERE, begun.inputs)

    def batches(start: int) -> Iterator[Batch]:
        for inputs, labels in chain([begun], map(_split, stream)):
            here = rows_of(WHERE, inputs)
            if start < here:
                yield Batch(
                    take_rows(inputs, slice(start, None)), labels if labels is None else labels[start:]
                )
            start = max(0, start - here)

    told = {
        "rows": str(rows),
        "batches": "" if rows else _length(data),
        "first": _content(take_rows(begun.inputs, slice(1))),
    }
    images = isinstance(begun.inputs, Tensor) and begun.inputs.dim() == 4
    return Source(rows, digest_of(told), batches, noun="image" if images else "row", ordered=ordered)


def _length(data: Any) -> str:
    try:
        return str(len(data))
    except TypeError:  # a loader has a length by its type, and may still have none
        return "unknown"


def _loader_rows(loader: DataLoader[Any]) -> int | None:
    if loader.batch_size is None or isinstance(loader.dataset, IterableDataset):
        return None
    rows = len(loader.sampler)  # type: ignore[arg-type]
    return rows - rows % loader.batch_size if loader.drop_last else rows


def _split(item: Any) -> tuple[Any, Any]:
    """(inputs, labels) of a batch or of a sample."""
    if isinstance(item, Mapping):
        labels = next((item[name] for name in _LABELS if name in item), None)
        return {name: value for name, value in item.items() if name not in _LABELS}, labels
    if isinstance(item, (tuple, list)):
        if len(item) in (1, 2):
            return item[0], (item[1] if len(item) == 2 else None)
        fix = "Make pairs (inputs, labels), or dicts of what the model takes by keyword."
        raise ValueError(explain(WHERE, "inputs, or inputs and labels", f"{len(item)} things per item", fix))
    return item, None


def _content(inputs: Any) -> str:
    if isinstance(inputs, Tensor):
        return tensor_digest(inputs)
    if isinstance(inputs, Mapping):
        return digest_of({str(name): _content(value) for name, value in inputs.items()})
    return repr(inputs)
