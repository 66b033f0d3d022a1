"""What a search tells while it runs: a bar on a terminal, a callable, and the history that the chain keeps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PAUSE = 0.1
"""Seconds between two looks of the bar at the measures, each of which waits for a GPU."""
Progress = bool | Callable[[Mapping[str, Any]], None] | None


@dataclass(frozen=True)
class _Entry:
    step: int
    seconds: float
    phase: str
    trial: int | None
    over: Tensor | None
    measures: dict[str, Tensor]


class Recorder:
    """Collects the measures of every step.

    Args:
        progress: See `extract_chain`.
        steps: Expected steps of the optimisation, for the bar.

    Attributes:
        interrupted: Set by whoever caught a Ctrl-C; later phases are left out then.
    """

    def __init__(self, progress: Progress, steps: int) -> None:
        self.interrupted = False
        self.phase = ""
        self._entries: list[_Entry] = []
        self._start = time.perf_counter()
        self._call = progress if callable(progress) else None
        self._bar: Any = None
        self._shown = 0.0
        if progress is True or (progress is None and sys.stderr.isatty()):
            self._bar, self._task = _bar(steps)

    def __call__(
        self, measures: dict[str, Tensor], trial: int | None = None, over: Tensor | None = None
    ) -> None:
        """Record one step: each measure has one value per trial, or one value where ``trial`` says whose.

        ``over`` (G,) bool: trials that the step is no longer part of; it stays out of their histories.
        """
        measures = {name: value.detach().reshape(-1) for name, value in measures.items()}
        now = time.perf_counter() - self._start
        entry = _Entry(len(self._entries) + 1, now, self.phase, trial, over, measures)
        self._entries.append(entry)
        due = self._bar and now >= self._shown + PAUSE
        if self._call or due:
            row = {name: float(value.mean()) for name, value in measures.items()}
            if self._call:
                self._call({"step": entry.step, "seconds": now, "phase": self.phase, **row})
            if due:
                self._shown = now
                words = f"{self.phase}: {100 * row['kept']:5.2f} % open, KL {row['kl']:.3f}"
                self._bar.update(self._task, completed=entry.step, description=words)

    def say(self, words: str) -> None:
        """Show on the bar what goes on now."""
        if self._bar:
            self._bar.update(self._task, description=words)

    def close(self) -> None:
        """Take the bar down."""
        if self._bar:
            self._bar.stop()

    def history(self, trial: int) -> dict[str, list[Any]]:
        """Of one trial: "step", "seconds", "phase" and its measures."""
        told = [entry.over for entry in self._entries if entry.over is not None]
        over = iter(torch.stack(told)[:, trial].tolist() if told else ())
        ended = [entry.over is not None and next(over) for entry in self._entries]
        mine = [
            entry
            for entry, end in zip(self._entries, ended, strict=True)
            if entry.trial in (None, trial) and not end
        ]
        history: dict[str, list[Any]] = {
            "step": [entry.step for entry in mine],
            "seconds": [entry.seconds for entry in mine],
            "phase": [entry.phase for entry in mine],
        }
        for name in ("kl", "agreement", "kept", "loss"):
            values = [entry.measures[name][trial if entry.trial is None else 0] for entry in mine]
            history[name] = torch.stack(values).tolist() if values else []
        return history


def _bar(steps: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("starting", total=steps)
    bar.start()
    return bar, task
