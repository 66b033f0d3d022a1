"""What long work tells while it goes on: a bar with the time left on a terminal, or a callable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from pyinterp.errors import explain

Progress = bool | Callable[[Mapping[str, Any]], None] | None


class Ticker:
    """Counts what is done.

    Args:
        progress: None shows a bar on a terminal and is silent elsewhere; True always shows it, False never. A callable
            gets {"done", "total", "seconds"} after every part.
        total: Of all; None if that is not known.
        done: How many are there already.
        noun: What is counted, for the bar.

    Raises:
        TypeError: `progress` is something else.
    """

    def __init__(self, progress: Progress, total: int | None, done: int, noun: str) -> None:
        _require(progress)
        self._done, self._total = done, total
        self._start = time.perf_counter()
        self._call = progress if callable(progress) else None
        self._bar: Any = None
        if progress is True or (progress is None and sys.stderr.isatty()):
            self._bar, self._task = _bar(total, done, noun)

    def __call__(self, count: int) -> None:
        """Note that ``count`` more are done."""
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


def _require(progress: Any) -> None:
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        fix = 'A callable gets {"done", "total", "seconds"} after every part.'
        raise TypeError(explain("progress", "None, True, False or a callable", repr(progress), fix))


def _bar(total: int | None, done: int, noun: str) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn(noun),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(noun, total=total, completed=done)
    bar.start()
    return bar, task
