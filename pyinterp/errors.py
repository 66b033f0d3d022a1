"""One shape for every message a user reads: what was expected, what was got, what to do."""

from __future__ import annotations


def explain(where: str, expected: str, got: object, fix: str) -> str:
    """Word an error as "where: expected ..., got .... fix".

    Args:
        where: The function or option that objects, e.g. ``"gate"``.
        expected: What would have been right, without a full stop.
        got: What came instead.
        fix: One sentence that a person can act on, with its full stop.
    """
    return f"{where}: expected {expected}, got {got}. {fix}"
