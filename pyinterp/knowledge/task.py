"""The task of probes: which classes the data show, and which samples no probe sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyinterp.errors import explain
from pyinterp.features import Features
from pyinterp.heads import held_rows
from pyinterp.heads.dense import class_rows

WHERE = "fit_probes"


@dataclass(frozen=True)
class Task:
    """The classes that are there: (N,) labels from 0 on, names, and which of the network's classes they are."""

    labels: Tensor
    names: tuple[str, ...]
    rows: tuple[int, ...] | None


def task_of(features: Features, known: Sequence[str], classes: int) -> Task:
    labels = features.labels
    if labels is None or labels.is_floating_point():
        got = "none" if labels is None else str(labels.dtype)
        fix = "Pass labels, or a folder with a sub-folder per class."
        raise ValueError(explain(WHERE, "labels (N,) of classes", got, fix))
    if int(labels.min()) < 0:
        fix = "Number the classes as the network does, from 0 on."
        raise ValueError(explain(WHERE, "labels from 0 on", int(labels.min()), fix))
    numbers, labels, counts = labels.unique(return_inverse=True, return_counts=True)
    listed = tuple(numbers.tolist())
    names = tuple(features.class_names[k] if features.class_names else str(k) for k in listed)
    if len(listed) < 2:
        raise ValueError(
            explain(WHERE, "two classes or more", f"one, {names[0]!r}", "Add samples of others.")
        )
    single = [name for name, count in zip(names, counts.tolist(), strict=True) if count == 1]
    if single:
        more = ", ..." if len(single) > 5 else ""
        got = f"one of {', '.join(single[:5])}{more}"
        fix = "Add some, or leave these classes out."
        raise ValueError(explain(WHERE, "two samples of each class or more", got, fix))
    rows: tuple[int, ...] | None = listed if listed[-1] < classes else None
    if features.class_names and known:
        matched = class_rows(names, known, classes)
        rows = None if matched is None else tuple(matched)
    elif features.class_names and len(listed) != classes:
        rows = None
    elif known and rows is not None:
        names = tuple(known[k] for k in rows)
    return Task(labels, names, rows)


def held_out_rows(task: Task, held_out: float | Tensor | Sequence[int], seed: int) -> Tensor:
    """Numbers of the held-out samples, in rising order."""
    if isinstance(held_out, (int, float)):
        return held_rows(task.labels, held_out, seed)
    try:
        held_out = torch.as_tensor(held_out)
    except (TypeError, ValueError, RuntimeError) as error:
        fix = "Pass 0.2 for a fifth, or numbers of samples."
        raise TypeError(explain(WHERE, "held_out as a share or as numbers", repr(held_out), fix)) from error
    count = len(task.labels)
    rows = held_out.flatten().unique()
    if (
        not len(rows)
        or rows.is_floating_point()
        or rows.dtype == torch.bool
        or not 0 <= rows[0] <= rows[-1] < count
    ):
        got = f"{rows.dtype}, {int(rows[0])} to {int(rows[-1])}" if len(rows) else "none"
        fix = "Pass them as whole numbers, or a share."
        raise ValueError(explain(WHERE, f"held_out samples from 0 to {count - 1}", got, fix))
    left = torch.bincount(task.labels.index_fill(0, rows.cpu(), -1) + 1, minlength=len(task.names) + 1)[1:]
    if int(left.min()) == 0:
        got = f"none of {task.names[int(left.argmin())]}"
        fix = "Hold fewer samples out."
        raise ValueError(explain(WHERE, "samples of each class to fit the probes to", got, fix))
    return rows.cpu().long()
