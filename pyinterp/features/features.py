"""``Features``: what a network's last layer reads, for many inputs, with the statistics that a sparse head needs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from pyinterp.errors import explain
from pyinterp.features.files import (
    Head,
    batches_of,
    files_of,
    map_rows,
    read_head,
    write_head,
    write_header,
    write_rows,
)
from pyinterp.features.labels import as_labels
from pyinterp.features.statistics import Statistics
from pyinterp.models.identity import model_digest

_ROOM = "Free some space, make the folder or choose another folder, and save again."


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Deep features of N inputs. All tensors are on the CPU.

    Attributes:
        values: (N, d) float32. If they come from a file, they are read from it when they are used; what is written
            into them does not change the file.
        labels: (N,) int64 classes, (N, m) float targets, or None.
        statistics: Mean, deviation and largest value of each feature over these N rows.
        classifier_name: Path of the layer that reads them in the model; "" if they come from elsewhere.
        model_digest: SHA-256 of the model; "" if they come from elsewhere.
        data_digest: Tells the inputs from others; "" if they come from elsewhere.
        names: N file names, or ``image 0``, ``image 1``, ...
        class_names: One per class, or empty.
    """

    values: Tensor
    labels: Tensor | None
    statistics: Statistics
    classifier_name: str = ""
    model_digest: str = ""
    data_digest: str = ""
    names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        values: Tensor,
        labels: Any = None,
        *,
        names: Iterable[str] | None = None,
        class_names: Iterable[str] = (),
    ) -> Features:
        """Features that were made elsewhere.

        Args:
            values: (N, d) finite numbers.
            labels: N classes (whole numbers), targets (N, m) as floats, or None.
            names: N names; None numbers the rows.
            class_names: One per class.

        Raises:
            ValueError: Shapes or counts that do not fit, or NaN or infinite values.
            TypeError: Something of another type.
        """
        if not isinstance(values, Tensor) or not values.is_floating_point():
            got = values.dtype if isinstance(values, Tensor) else type(values).__name__
            fix = "torch.as_tensor makes a tensor of an array, .float() makes floats of whole numbers."
            raise TypeError(explain("Features.of", "a float tensor (N, d)", got, fix))
        if values.dim() != 2 or not values.numel():
            fix = "Put the inputs on the first axis and their features on the second."
            raise ValueError(explain("Features.of", "values (N, d)", tuple(values.shape), fix))
        values = values.detach().to("cpu", torch.float32)
        called = tuple(f"row {i}" for i in range(len(values))) if names is None else tuple(names)
        if len(called) != len(values):
            fix = "Pass one name for each row, or none at all."
            raise ValueError(explain("Features.of", f"{len(values)} names", len(called), fix))
        statistics = Statistics.none(values.shape[1])
        for some in batches_of(values):
            here = slice(statistics.rows, statistics.rows + len(some))
            require_finite_rows("Features.of", some, called[here])
            statistics = statistics.and_of(some)
        given = None if labels is None else as_labels("Features.of", labels, len(values))
        return cls(values, given, statistics, names=called, class_names=tuple(class_names))

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Features({len(self)} x {self.values.shape[1]})"

    @property
    def mean(self) -> Tensor:
        """(d,) float64."""
        return self.statistics.mean

    @property
    def std(self) -> Tensor:
        """(d,) float64, of the population: divided by N."""
        return self.statistics.std

    @property
    def max(self) -> Tensor:
        """(d,) float64."""
        return self.statistics.max

    @property
    def constant(self) -> Tensor:
        """(d,) bool: features whose deviation is rounding, at most 1e-6 of their mean."""
        return self.statistics.constant

    def standardised(self, rows: slice | Tensor = slice(None)) -> Tensor:
        """(n, d) float32: (x - mean) / std of these rows; 0 where a feature is constant.

        Equivalent to ``sklearn.preprocessing.StandardScaler().fit(values).transform(values[rows])``.
        """
        scale = torch.where(self.constant, 0.0, 1 / self.std)
        return ((self.values[rows].double() - self.mean) * scale).float()

    def subset(self, indices: slice | Tensor | Iterable[int]) -> Features:
        """Some of the rows, in the given order, in memory; the statistics are those of these rows.

        Args:
            indices: A slice, row numbers, or (N,) bool.

        Raises:
            ValueError: No row, or rows that are not there.
        """
        everything = torch.arange(len(self))
        try:
            if not isinstance(indices, slice):
                indices = torch.as_tensor(indices if isinstance(indices, Tensor) else list(indices)).cpu()
                indices = indices if indices.dtype == torch.bool else indices.long()
            chosen = everything[indices].reshape(-1)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            fix = "Pass a slice, row numbers, or a bool for each row."
            got = f"{type(error).__name__}: {error}"
            raise ValueError(explain("subset", f"some of {len(self)} rows", got, fix)) from error
        if not len(chosen):
            raise ValueError(explain("subset", "at least one row", "none", "Choose some."))
        statistics = Statistics.none(self.values.shape[1])
        values = self.values[chosen]
        for some in batches_of(values):
            statistics = statistics.and_of(some)
        return Features(
            values,
            None if self.labels is None else self.labels[chosen],
            statistics,
            self.classifier_name,
            self.model_digest,
            "",
            tuple(self.names[i] for i in chosen.tolist()),
            self.class_names,
        )

    def summary(self) -> str:
        """A few lines for people."""
        n, d = self.values.shape
        source = f" of {self.classifier_name!r}" if self.classifier_name else ""
        lines = [f"{n} inputs, {d} features{source}"]
        if self.labels is not None and self.labels.dim() == 1:
            counts = self.labels.unique(return_counts=True)[1]
            lines.append(f"{len(counts)} classes with {int(counts.min())} to {int(counts.max())} inputs each")
        elif self.labels is not None:
            lines.append(f"{self.labels.shape[1]} targets")
        else:
            lines.append("no labels")
        lines.append(f"{int(self.constant.sum())} features are constant")
        low, high = self.std.min(), self.std.max()
        lines.append(
            f"deviations from {float(low):.3g} to {float(high):.3g}, largest value {float(self.max.max()):.3g}"
        )
        return "\n".join(lines)

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``PATH.npy`` (the values) and ``PATH.json``; numpy.load reads the first.

        Raises:
            ValueError: The path names no file.
            OSError: They could not be written; older files are whole then.
        """
        npy, beside = files_of("Features.save", path)
        draft = npy.with_name(f".{npy.name}.{os.getpid()}")
        try:
            with open(draft, "wb", buffering=0) as file:
                write_header(file, *self.values.shape)
                write_rows(file, self.values)
            os.replace(draft, npy)
        except OSError as error:
            got = error.strerror or error
            raise OSError(explain("Features.save", f"to write {npy}", got, _ROOM)) from error
        finally:
            draft.unlink(missing_ok=True)
        head = Head(
            self.classifier_name,
            self.model_digest,
            self.data_digest,
            self.statistics,
            self.labels,
            self.names,
            self.class_names,
            True,
        )
        write_head("Features.save", beside, head, _ROOM)

    @classmethod
    def load(cls, path: str | PathLike[str], model: nn.Module | None = None) -> Features:
        """Read what ``save`` or ``extract_features(file=...)`` wrote; the values stay in the file.

        Args:
            path: With or without ``.npy``.
            model: If given, the features must be its.

        Raises:
            ValueError: The files are missing, damaged, cut off, unfinished, or of another model.
        """
        npy, beside = files_of("Features.load", path)
        head = read_head("Features.load", npy, beside)
        if not head.finished:
            fix = "Call extract_features with the same file, model and data: it goes on from there."
            got = f"the first {head.statistics.rows} rows of them"
            raise ValueError(explain("Features.load", f"all features in {npy}", got, fix))
        if model is not None and model_digest(model) != head.model_digest:
            fix = "Load the weights that they were made with, or extract them again."
            raise ValueError(
                explain("Features.load", f"features of this model in {npy}", "features of another model", fix)
            )
        return features_from(map_rows(npy, head.statistics.rows), head)


def features_from(values: Tensor, head: Head) -> Features:
    """The two together."""
    return Features(
        values,
        head.labels,
        head.statistics,
        head.classifier,
        head.model_digest,
        head.data_digest,
        head.names,
        head.class_names,
    )


def require_finite_rows(where: str, values: Tensor, names: Iterable[str]) -> None:
    """Raise ValueError, with the first names and the count, unless all values (n, d) are finite."""
    # A sum of float32 can't overflow in float64, and takes one pass.
    if values.sum(dtype=torch.float64).isfinite():
        return
    bad = (~values.isfinite()).any(1).tolist()
    which = [name for name, is_bad in zip(names, bad, strict=True) if is_bad]
    more = ", ..." if len(which) > 5 else ""
    got = f"NaN or infinity in {len(which)} of {len(bad)} rows of a batch: {', '.join(which[:5])}{more}"
    fix = "Check these inputs, the preprocessing and the model's weights and precision."
    raise ValueError(explain(where, "finite features", got, fix))
