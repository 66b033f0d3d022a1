"""What a game tells while it is played: a bar with the time left on a terminal, or a callable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from pyinterp.games.checks import require_progress

Progress = bool | Callable[[Mapping[str, Any]], None] | None


class Ticker:
    """Counts evaluated subsets.

    Args:
        progress: None shows a bar on a terminal and is silent elsewhere; True always shows it, False never. A callable
            gets {"done", "total", "seconds"} after every batch.
        total: Subsets in all.
        done: How many of them are there already.

    Raises:
        TypeError: `progress` is something else.
    """

    def __init__(self, progress: Progress, total: int, done: int) -> None:
        require_progress(progress)
        self._done, self._total = done, total
        self._start = time.perf_counter()
        self._call = progress if callable(progress) else None
        self._bar: Any = None
        if progress is True or (progress is None and sys.stderr.isatty()):
            self._bar, self._task = _bar(total, done)

    def __call__(self, count: int) -> None:
        """Note that ``count`` more subsets are evaluated."""
        self._done += count
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        if self._call:
            seconds = time.perf_counter() - self._start
            self._call({"done": self._done, "total": self._total, "seconds": seconds})

    def close(self) -> None:
        """Take the bar down."""
        if self._bar:
            self._bar.stop()


def _bar(total: int, done: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("subsets"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("subsets", total=total, completed=done)
    bar.start()
    return bar, task
