"""Features while they are read: rows in memory, or in two files that grow together."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features.files import (
    ANOTHER,
    Head,
    files_of,
    map_rows,
    read_head,
    write_head,
    write_header,
    write_rows,
)
from pyinterp.features.statistics import Statistics

EVERY = 30.0  # seconds between two times that the rows on disk are made to count


class Rows:
    """Rows in memory.

    Args:
        model_digest: SHA-256 of the model.
        data_digest: Of what the rows are made of.
        expected: How many there will be, if that is known.
    """

    def __init__(self, model_digest: str, data_digest: str, expected: int | None = None) -> None:
        self._head = Head("", model_digest, data_digest, Statistics.none(0), None, (), (), False)
        self._labels: list[Tensor] = []
        self._expected = expected or 0

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._head.statistics.rows

    @property
    def finished(self) -> bool:
        """Whether all are there."""
        return self._head.finished

    @property
    def head(self) -> Head:
        """What is known about the rows so far."""
        return replace(self._head, labels=torch.cat(self._labels)[: self.count] if self._labels else None)

    @property
    def label_dtype(self) -> torch.dtype | None:
        """Of the labels that came with the rows so far; None if there are none."""
        return self._labels[0].dtype if self._labels else None

    def begin(self, classifier: str, features: int) -> None:
        """Get ready for more rows, of ``features`` values each."""
        if not self.count:
            self._head = replace(self._head, classifier=classifier, statistics=Statistics.none(features))
        self._open(features)

    def append(self, values: Tensor, labels: Tensor | None) -> None:
        """Take rows (n, d) float32 on the CPU, and labels (n,) or (n, m)."""
        self._keep(values)
        self._labels += [] if labels is None else [labels]
        # Last, since it is what makes the rows count: Ctrl-C may come between any two lines.
        self._head = replace(self._head, statistics=self._head.statistics.and_of(values))

    def finish(self, labels: Tensor | None, names: tuple[str, ...], class_names: tuple[str, ...]) -> None:
        """Note that all rows are there; ``labels`` (N, ...) replace those that came with the rows, unless None."""
        self._head = replace(self._head, names=names, class_names=class_names, finished=True)
        self._labels = self._labels if labels is None else [labels]

    def values(self) -> Tensor:
        """(N, d) float32."""
        whole = len(self._buffer) == self.count
        return self._buffer if whole else self._buffer[: self.count].clone()

    def close(self) -> None:
        """Keep what is there, after success and after an exception."""

    def _open(self, features: int) -> None:
        self._buffer = torch.empty(self._expected, features)

    def _keep(self, values: Tensor) -> None:
        start, stop = self.count, self.count + len(values)
        if stop > len(self._buffer):
            larger = values.new_empty(max(stop, 2 * start), values.shape[1])
            larger[:start] = self._buffer[:start]
            self._buffer = larger
        self._buffer[start:stop] = values


class FileRows(Rows):
    """Rows in ``PATH.npy``, all else in ``PATH.json``.

    Rows are appended by ordinary writes: a full disk is an error then, where a write through a memory map would end the
    process. The ``.json`` says how many rows count. It is replaced in one go once they are on the disk, so the two fit
    together whatever happens.

    Args:
        path: With or without ``.npy``. If the files are there, they are gone on with.
        model_digest: See `Rows`.
        data_digest: See `Rows`.

    Raises:
        ValueError: The files are of another model or of other data, cut off, damaged or no features.
    """

    def __init__(self, path: str | PathLike[str], model_digest: str, data_digest: str) -> None:
        super().__init__(model_digest, data_digest)
        self._npy, self._json = files_of("extract_features", path)
        self._file: Any = None
        self._kept, self._written = 0, time.monotonic()
        if not self._json.exists() and not self._npy.exists():
            return
        found = read_head("extract_features", self._npy, self._json)
        differs = [found.model_digest != model_digest, found.data_digest != data_digest]
        if any(differs):
            got = " and of ".join(
                what for what, is_so in zip(("another model", "other data"), differs, strict=True) if is_so
            )
            wanted = f"features of this model and these data in {self._npy}"
            raise ValueError(explain("extract_features", wanted, f"features of {got}", ANOTHER))
        self._head, self._kept = found, self.count
        self._labels = [] if found.labels is None else [found.labels]

    def finish(self, labels: Tensor | None, names: tuple[str, ...], class_names: tuple[str, ...]) -> None:
        super().finish(labels, names, class_names)
        self._write()

    def values(self) -> Tensor:
        return map_rows(self._npy, self.count)

    def close(self) -> None:
        if self._file is not None and self._kept != self.count:
            self._write()
        if self._file is not None:
            self._file.close()
        self._file = None

    def _open(self, features: int) -> None:
        known = self._head.statistics.mean.numel()
        if features != known:
            got = f"{features} features from the model"
            raise ValueError(explain("extract_features", f"{known} as in {self._npy}", got, ANOTHER))
        with self._writing():
            # Not buffered: what could not be written must not be tried again when the file is closed.
            self._file = open(self._npy, "r+b" if self.count else "wb", buffering=0)  # noqa: SIM115
        self._write()
        with self._writing():
            self._file.truncate(self._start + 4 * features * self.count)

    def _keep(self, values: Tensor) -> None:
        if time.monotonic() - self._written > EVERY:
            self._write()
        with self._writing():
            self._file.seek(self._start + 4 * values.shape[1] * self.count)
            write_rows(self._file, values)

    def _write(self) -> None:
        with self._writing():
            self._make_count(self._file)

    def _make_count(self, file: Any) -> None:
        """Bring rows and statistics to the disk, and then the word that they count."""
        if file is not None:
            self._start = write_header(file, self.count, self._head.statistics.mean.numel())
            os.fsync(file.fileno())
        write_head("extract_features", self._json, self.head, "Free some space.")
        self._kept, self._written = self.count, time.monotonic()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            file, self._file = self._file, None
            if file is not None:
                with suppress(OSError), file:
                    self._make_count(file)
                if not self._json.exists():  # nothing counts yet: the next call begins anew
                    self._npy.unlink(missing_ok=True)
            fix = "Choose a file in a folder that exists, may be written to and has room."
            if self._kept:
                fix = f"Its first {self._kept} rows are kept: free some space, and call again to go on from there."
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            got = cause.strerror or cause
            raise OSError(explain("extract_features", f"to write {self._npy}", got, fix)) from error
