"""A bar with the time left, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(words: str, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
    """While inside, a bar stands on a terminal; elsewhere nothing is shown.

    Args:
        words: What is counted.
        total: How many there are; None if that is not known.
        done: How many of them are done already.

    Yields:
        Takes the number of those that have been done since.
    """
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(words),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(words, total=total, completed=done)
        yield lambda count: shown.advance(task, count)
