"""The points of a path while it is followed, in memory and on disk."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyinterp.elastic.penalty import Penalty
from pyinterp.elastic.solver import Solution
from pyinterp.errors import explain
from pyinterp.heads.problem import WHERE
from pyinterp.heads.sparse_path import SparsePath
from pyinterp.progress import Progress, Ticker

WRITE_EVERY = 30.0  # seconds

Solve = Callable[[Penalty, Tensor, Tensor, float], Solution]
SAME = ("alpha", "family", "grouped", "tolerance", "samples")
SAME_SETTINGS = ("data", "grid", "solver", "max_passes", "seed")


class Trail:
    """Follows a grid of lambdas, each head from the one before.

    Args:
        common: The fields of the `SparsePath` that all points share.
        penalties: One per lambda, falling.
        file: Path without suffix to go on from and to write to, or None.

    Raises:
        ValueError: The file is damaged or belongs to other data or arguments.
        OSError: It can't be written.
    """

    def __init__(
        self, common: Mapping[str, Any], penalties: Sequence[Penalty], file: str | PathLike[str] | None
    ) -> None:
        self._common, self._penalties = dict(common), penalties
        self._file = None if file is None else fspath(file)
        self._columns: dict[str, list[Any]] = {name: [] for name in (*_COLUMNS, "curvatures")}
        self._stored, self._told = 0, False
        if self._file is None:
            return
        folder = Path(self._file).parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            fix = "Make the folder, or choose another."
            raise OSError(explain(WHERE, f"to write {self._file}", "a folder that can't be written to", fix))
        if Path(f"{self._file}.json").exists():
            self._read(self._file)

    def __len__(self) -> int:
        return len(self._columns["weights"])

    def follow(
        self, solve: Solve, start: tuple[Tensor, Tensor, float], most: float | None, progress: Progress
    ) -> str:
        """Add points until the grid ends, a head has ``most`` features per class, or Ctrl-C; say which.

        Args:
            solve: Finds a point from penalty, weights, biases and curvature.
            start: Weights and biases at lambda_max, and a curvature.
            most: See ``max_features_per_class``.
            progress: See `fit_sparse_path`.
        """
        for done in range(len(self)):
            if self._full(done, most):
                for column in self._columns.values():
                    del column[done + 1 :]
                return "max_features_per_class"
        ticker = Ticker(progress, len(self._penalties), len(self), "points")
        *head, flat = start
        written = time.monotonic()
        try:
            for penalty in self._penalties[len(self) :]:
                weights, bias = self._start(penalty.strength) if len(self) else head
                curvature = self._columns["curvatures"][-1] if len(self) else flat
                self._add(penalty, solve(penalty, weights.to(head[0]), bias.to(head[1]), curvature))
                if self._file is not None and time.monotonic() - written > WRITE_EVERY:
                    self.keep(self.path("running"))
                    written = time.monotonic()
                ticker(1)
                if self._full(-1, most):
                    return "max_features_per_class"
        except KeyboardInterrupt:
            if not len(self):
                raise
            return "interrupted"
        finally:
            ticker.close()
        return "grid"

    def path(self, stopped: str) -> SparsePath:
        """The points so far."""
        columns = self._columns
        empty = torch.zeros(0, dtype=torch.float64)
        settings = {**self._common["settings"], "curvatures": list(columns["curvatures"])}
        kkt = torch.tensor(columns["kkt"], dtype=torch.float64)
        return SparsePath(
            lambdas=torch.tensor(columns["lambdas"], dtype=torch.float64),
            weights=torch.stack(columns["weights"]),
            biases=torch.stack(columns["biases"]),
            kkt=kkt,
            objective=torch.tensor(columns["objective"], dtype=torch.float64),
            converged=kkt <= self._common["tolerance"],
            passes=torch.tensor(columns["passes"]),
            train_loss=torch.tensor(columns["train_loss"], dtype=torch.float64),
            train_accuracy=empty,
            validation_loss=empty,
            validation_accuracy=empty,
            stopped=stopped,
            **{**self._common, "settings": settings},
        )

    def keep(self, path: SparsePath) -> None:
        """Write the path to the file, if there is one and it has no more points; one warning if that can't be done."""
        if self._file is None or len(path) < self._stored:
            return
        try:
            path.save(self._file)
            self._stored = len(path)
        except (OSError, ValueError) as error:  # ValueError: a folder has the name
            if not self._told:
                fix = "The work goes on and the path is returned all the same: keep it with its save."
                got = str(error.__cause__ or error).rstrip(".")
                warnings.warn(explain(WHERE, f"to write {self._file}", got, fix), stacklevel=3)
            self._told = True

    def _start(self, strength: float) -> tuple[Tensor, Tensor]:
        """The last head, carried on along the line through the last two; no weight changes its sign."""
        weights, biases, lambdas = (self._columns[name] for name in ("weights", "biases", "lambdas"))
        if len(self) < 2:
            return weights[-1], biases[-1]
        ratio = (lambdas[-1] - strength) / (lambdas[-2] - lambdas[-1])
        carried = torch.lerp(weights[-2], weights[-1], 1 + ratio)
        carried = torch.where(carried * weights[-1] > 0, carried, 0.0)
        return carried, torch.lerp(biases[-2], biases[-1], 1 + ratio)

    def _add(self, penalty: Penalty, found: Solution) -> None:
        bias = found.bias.cpu()
        if self._common["family"] == "multinomial":  # a softmax does not see what all biases share
            bias = bias - bias.mean()
        for name, value in (
            ("lambdas", penalty.strength),
            ("weights", found.weights.cpu()),
            ("biases", bias),
            ("kkt", found.violation),
            ("objective", found.objective),
            ("passes", found.passes),
            ("train_loss", found.gradient.loss),
            ("curvatures", found.curvature),
        ):
            self._columns[name].append(value)

    def _full(self, point: int, most: float | None) -> bool:
        weights = self._columns["weights"][point]
        return most is not None and int((weights != 0).sum()) >= most * len(weights)

    def _read(self, file: str) -> None:
        stored = SparsePath.load(file)
        mine, theirs = self._common, {name: getattr(stored, name) for name in SAME}
        parts = [name for name in SAME if mine[name] != theirs[name]]
        parts += [name for name in SAME_SETTINGS if mine["settings"][name] != stored.settings.get(name)]
        parts += [] if "curvatures" in stored.settings else ["version"]
        if parts:
            got = f"one of another path (it differs in {', '.join(parts)})"
            fix = "Choose another file, or delete it to start anew."
            raise ValueError(explain(WHERE, f"a path of this call at {file}", got, fix))
        for name in _COLUMNS:
            values = getattr(stored, name)
            self._columns[name] += values.unbind() if name in ("weights", "biases") else values.tolist()
        self._columns["curvatures"] += stored.settings["curvatures"]
        self._stored = len(stored)


_COLUMNS = ("lambdas", "weights", "biases", "kkt", "objective", "passes", "train_loss")
